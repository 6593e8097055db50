// What a CUDA kernel without shared memory needs to be a C++ function that a loop calls thread by thread.
#include <algorithm>
#include <cmath>
#include <cstdint>
#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline
#define __launch_bounds__(...)
struct dim3 {
  unsigned int x, y, z;
};
struct uchar4 {
  unsigned char x, y, z, w;
};
struct float4 {
  float x, y, z, w;
};
static thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
template <typename T>
static inline T __ldg(const T* p) { return *p; }
static inline int __float2int_rn(float x) { return (int)std::nearbyintf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned int x) { return (float)x; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
static inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
using std::max;
using std::min;
