// Generate images with a bundle, invert them, and generate them again, with ONNX Runtime's C++ API alone:
// ./round_trip BUNDLE FOLDER GENERATION INVERSION SEEDS [LABELS]      (FOLDER must exist)
#include <algorithm>
#include <fstream>
#include <sstream>
#include "noise.hpp"
#include "onnxruntime_cxx_api.h"

using Floats = std::vector<float>;
using Integers = std::vector<int64_t>;

int main(int argc, char** argv) {
  const std::string bundle = argv[1], folder = argv[2];
  const char* const steps[][2] = {{"images", argv[3]}, {"latents", argv[4]}, {"again", "80>0.002"}};
  Integers seeds, labels;
  std::istringstream seed_list(argv[5]), label_list(argc > 6 ? argv[6] : "");
  for (std::string seed; std::getline(seed_list, seed, ',');) seeds.push_back(std::stoull(seed));
  for (std::string label; std::getline(label_list, label, ',');) labels.push_back(std::stoll(label));
  Ort::Env env;
  Ort::Session forward(env, (bundle + "/forward.onnx").c_str(), Ort::SessionOptions{});
  Ort::Session inverse(env, (bundle + "/inverse.onnx").c_str(), Ort::SessionOptions{});
  const Integers x_shape = forward.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
  const size_t count = seeds.size(), size = x_shape[1] * x_shape[2] * x_shape[3];
  const Integers batch{int64_t(count)}, shape{int64_t(count), x_shape[1], x_shape[2], x_shape[3]};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto tensor = [&](auto& values, const Integers& shape) {
    return Ort::Value::CreateTensor(memory, values.data(), values.size(), shape.data(), shape.size());
  };
  Floats x = gaussian(seeds, START, size, 80), noise(x.size());
  for (const auto& [name, schedule] : steps) {
    std::istringstream words(schedule);
    std::string word;
    uint64_t injections = 0;
    float t = 0, u = 0;
    for (bool first = true; words >> word; first = false) {
      std::istringstream levels(word);
      levels >> t;
      if (word[0] == '+') noise = gaussian(seeds, first ? INVERSION : ++injections, size, t);
      for (char arrow; levels >> arrow >> u; t = u) {
        Floats ts(count, t), us(count, u);
        for (size_t i = 0; u < t && i < x.size(); i++) x[i] += noise[i];
        const char *names[] = {"x", "t", "u", u > t ? "noise" : "label", "label"}, *output = "x_u";
        std::vector<Ort::Value> inputs;
        inputs.push_back(tensor(x, shape));
        for (Floats* values : {&ts, &us}) inputs.push_back(tensor(*values, batch));
        if (u > t) inputs.push_back(tensor(noise, shape));
        if (!labels.empty()) inputs.push_back(tensor(labels, batch));
        auto results = (u > t ? inverse : forward).Run({}, names, inputs.data(), inputs.size(), &output, 1);
        std::copy_n(results[0].GetTensorData<float>(), x.size(), x.data());
        noise.assign(x.size(), 0);
      }
    }
    Floats result(x);
    for (float& value : result) value = u == 80 ? value / 80 : std::clamp(value, -1.0f, 1.0f);
    if (u < 80) x = result;
    std::ofstream file(folder + "/" + name + ".f32", std::ios::binary);
    file.write(reinterpret_cast<const char*>(result.data()), result.size() * sizeof(float));
  }
}
