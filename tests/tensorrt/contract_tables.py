"""Members of TensorRT classes that the project uses, one class per line; some classes have several lines."""

from __future__ import annotations

# Members that the project uses in every version.
EVERYWHERE = """
Builder: Builder(logger); create_network(flags) -> INetworkDefinition
Builder: create_builder_config() -> IBuilderConfig
Builder: num_DLA_cores; create_optimization_profile() -> IOptimizationProfile
Builder: build_serialized_network(network, config) -> IHostMemory
BuilderFlag: TF32; GPU_FALLBACK
DataType: FLOAT; HALF; INT32; INT8; FP8
DeviceType: DLA
EngineInspector: execution_context; get_engine_information(format) -> str
IBuilderConfig: builder_optimization_level; profiling_verbosity; default_device_type; set_flag(flag) -> None
IBuilderConfig: clear_flag(flag) -> None
IBuilderConfig: set_memory_pool_limit(pool, pool_size) -> None; add_optimization_profile(profile) -> int
IBuilderConfig: create_timing_cache(serialized_timing_cache) -> ITimingCache
IBuilderConfig: set_timing_cache(cache, ignore_mismatch) -> bool
IBuilderConfig: get_timing_cache() -> ITimingCache; can_run_on_DLA(layer) -> bool; max_aux_streams
ICudaEngine: num_io_tensors; get_tensor_name(index) -> str; get_tensor_mode(name) -> TensorIOMode
ICudaEngine: get_tensor_shape(name) -> Dims; num_optimization_profiles
ICudaEngine: get_tensor_dtype(name) -> DataType; create_engine_inspector() -> EngineInspector
IErrorRecorder: IErrorRecorder()
IExecutionContext: device_memory; set_input_shape(name, shape) -> bool; infer_shapes() -> list[str]
IExecutionContext: set_optimization_profile_async(profile_index, stream_handle) -> bool
IExecutionContext: set_tensor_address(name, memory) -> bool; execute_async_v3(stream_handle) -> bool
ILayer: name; type; get_input(index) -> ITensor; get_output(index) -> ITensor
ILogger: ILogger(); log(severity, msg) -> None
ILogger.Severity: ERROR; INTERNAL_ERROR
INetworkDefinition: num_layers; num_inputs; get_layer(index) -> ILayer; get_input(index) -> ITensor
IOptimizationProfile: set_shape(input, min, opt, max) -> None
ITensor: name; dtype; shape
ITimingCache: serialize() -> IHostMemory
LayerInformationFormat: JSON
LayerType: CONVOLUTION; DEQUANTIZE
MemoryPoolType: WORKSPACE
OnnxParser: OnnxParser(network, logger); parse_from_file(model) -> bool; num_errors
OnnxParser: get_error(index) -> ParserError; set_flag(flag) -> None
OnnxParserFlag: NATIVE_INSTANCENORM
ParserError: desc() -> str
ProfilingVerbosity: DETAILED
Refitter: Refitter(engine, logger); refit_cuda_engine() -> bool; get_missing_weights() -> list[str]
Runtime: Runtime(logger); error_recorder; deserialize_cuda_engine(serialized_engine) -> ICudaEngine
TensorIOMode: INPUT
"""

# Members that runtime/engines/adapter.py uses only if they exist.
SINCE_10 = """
BuilderFlag: STRIP_PLAN; REFIT_IDENTICAL
DataType: BF16
ExecutionContextAllocationStrategy: USER_MANAGED
IBuilderConfig: progress_monitor
ICudaEngine: get_device_memory_size_for_profile_v2(profile_index) -> int
ICudaEngine: create_execution_context(strategy) -> IExecutionContext
IExecutionContext: set_device_memory(memory, size) -> None
IProgressMonitor: IProgressMonitor(); phase_start(phase_name, parent_phase, num_steps) -> None
IProgressMonitor: step_complete(phase_name, step) -> bool; phase_finish(phase_name) -> None
NetworkDefinitionCreationFlag: STRONGLY_TYPED
OnnxParserRefitter: OnnxParserRefitter(refitter, logger); refit_from_file(model) -> bool; num_errors
OnnxParserRefitter: get_error(index) -> ParserError
ParserError: node_name() -> str; node_operator() -> str
"""
BEFORE_11 = """
BuilderFlag: FP16; INT8; OBEY_PRECISION_CONSTRAINTS
ICudaEngine: device_memory_size; create_execution_context_without_device_memory() -> IExecutionContext
NetworkDefinitionCreationFlag: EXPLICIT_BATCH
"""
