// Forward and backward of an exported training in ExecuTorch's own runtime, without Python.
// executorch_runner PROGRAM BATCH_SIZE RESOLUTION STEPS prints one JSON object.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

using executorch::extension::make_tensor_ptr;
using executorch::extension::Module;

static double processor_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

static long peak_resident_bytes() {
  char line[256];
  long kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status != nullptr && fgets(line, sizeof line, status) != nullptr)
    if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = atol(line + 6);
  if (status != nullptr) fclose(status);
  return 1024 * kilobytes;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  const int batch = atoi(argv[2]), side = atoi(argv[3]), steps = atoi(argv[4]);
  Module module(argv[1], Module::LoadMode::Mmap);
  auto images = make_tensor_ptr(
      {batch, 3, side, side}, std::vector<float>(static_cast<size_t>(batch) * 3 * side * side));
  auto labels = make_tensor_ptr({batch}, std::vector<int64_t>(batch));
  double started = 0;
  for (int step = 0; step <= steps; step++) {
    if (step == 1) started = processor_seconds();  // the first one warms up
    if (!module.execute("forward", {images, labels}).ok()) return 1;
  }
  printf("{\"peak_bytes\": %ld, \"seconds\": %.6f}\n", peak_resident_bytes(),
         (processor_seconds() - started) / steps);
}
