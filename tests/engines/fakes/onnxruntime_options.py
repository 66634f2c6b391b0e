"""What the GPU providers of onnxruntime accept: provider options, and the names of their switches."""

from __future__ import annotations

from dataclasses import dataclass

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
TRUE = ("1", "true", "True")


@dataclass(frozen=True)
class Kind:
    """A GPU provider.

    options: the names of its options. graphs: the option that turns CUDA graphs on, and its default.
    graph_id: the entry of RunOptions that selects a graph, or None if a session has only one graph.
    profile: the beginning of its options for shapes. library: the library that it needs.
    """

    options: frozenset[str]
    graphs: tuple[str, str]
    graph_id: str | None
    profile: str
    library: str


_COMMON = {"device_id", "has_user_compute_stream", "user_compute_stream"}
_CUDA = """
    gpu_mem_limit arena_extend_strategy cudnn_conv_algo_search do_copy_in_default_stream
    cudnn_conv_use_max_workspace enable_cuda_graph cudnn_conv1d_pad_to_nc1d tunable_op_enable
    tunable_op_tuning_enable tunable_op_max_tuning_duration_ms enable_skip_layer_norm_strict_mode prefer_nhwc
    use_ep_level_unified_stream use_tf32 fuse_conv_bias sdpa_kernel gpu_external_alloc gpu_external_free
    gpu_external_empty_cache
"""
_TENSORRT = """
    trt_max_partition_iterations trt_min_subgraph_size trt_max_workspace_size trt_fp16_enable trt_bf16_enable
    trt_int8_enable trt_int8_calibration_table_name trt_int8_use_native_calibration_table trt_dla_enable
    trt_dla_core trt_dump_subgraphs trt_engine_cache_enable trt_engine_cache_path trt_engine_cache_prefix
    trt_weight_stripped_engine_enable trt_onnx_model_folder_path trt_engine_decryption_enable
    trt_engine_decryption_lib_path trt_force_sequential_engine_build trt_context_memory_sharing_enable
    trt_layer_norm_fp32_fallback trt_timing_cache_enable trt_timing_cache_path trt_force_timing_cache
    trt_detailed_build_log trt_build_heuristics_enable trt_sparsity_enable trt_builder_optimization_level
    trt_auxiliary_streams trt_tactic_sources trt_extra_plugin_lib_paths trt_profile_min_shapes
    trt_profile_max_shapes trt_profile_opt_shapes trt_cuda_graph_enable trt_preview_features
    trt_dump_ep_context_model trt_ep_context_file_path trt_ep_context_embed_mode trt_engine_hw_compatible
    trt_op_types_to_exclude trt_load_user_initializer
"""
_RTX = """
    nv_max_workspace_size nv_max_shared_mem_size nv_dump_subgraphs nv_detailed_build_log nv_profile_min_shapes
    nv_profile_max_shapes nv_profile_opt_shapes enable_cuda_graph nv_multi_profile_enable
    nv_use_external_data_initializer nv_runtime_cache_path nv_weight_streaming_budget nv_op_types_to_exclude
"""

KINDS = {
    CUDA: Kind(
        frozenset(_COMMON | set(_CUDA.split())),
        ("enable_cuda_graph", "0"),
        "gpu_graph_id",
        "",
        "libcublasLt.so.13",
    ),
    # One graph per session: the id of a run is not looked at (tensorrt_execution_provider.cc).
    TENSORRT: Kind(
        frozenset(_COMMON | set(_TENSORRT.split())),
        ("trt_cuda_graph_enable", "0"),
        None,
        "trt_profile",
        "libnvinfer.so.10",
    ),
    RTX: Kind(
        frozenset(_COMMON | set(_RTX.split())),
        ("enable_cuda_graph", "1"),
        "cuda_graph_annotation_id",
        "nv_profile",
        "libtensorrt_rtx.so",
    ),
}


def profiles(options: dict[str, str], kind: Kind) -> list[dict[str, tuple[list[int], list[int]]]]:
    """Return the optimisation profiles in the options: input → its smallest and its largest shape."""
    ends = [_shapes(options.get(f"{kind.profile}_{end}_shapes", "")) for end in ("min", "opt", "max")]
    if not any(ends):
        return []
    smallest, optimum, largest = ends
    if not smallest.keys() == optimum.keys() == largest.keys():
        raise RuntimeError(f"{kind.profile}: min, opt and max must have shapes of the same inputs")
    count = len(next(iter(smallest.values())))
    for name in smallest:
        if not len(smallest[name]) == len(optimum[name]) == len(largest[name]) == count:
            raise RuntimeError(f"{kind.profile}: {name} must have a shape in every profile")
    return [
        {name: (smallest[name][index], largest[name][index]) for name in smallest} for index in range(count)
    ]


def _shapes(text: str) -> dict[str, list[list[int]]]:
    """Parse "x:1x3x8x8,t:1,x:2x3x8x8,t:2": the shapes of each input, one for each profile."""
    shapes: dict[str, list[list[int]]] = {}
    for word in filter(None, text.split(",")):
        name, _, sizes = word.rpartition(":")
        shapes.setdefault(name, []).append([int(size) for size in sizes.split("x")])
    return shapes
