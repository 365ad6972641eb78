// Epilogue of forward and grad-x on Hopper: v = (float)acc (scale[i] 2^exponent); y = v or y + v.
//
// Neighbouring lanes exchange halves so that each stores four floats in a row: of every 16 columns, lane 0 of four has columns 0-3,
// lane 2 has 4-7, lane 1 has 8-11, lane 3 has 12-15.
#ifndef TV_KERNELS_GEMM_HOPPER_SCALE_CUH
#define TV_KERNELS_GEMM_HOPPER_SCALE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

template <int WIDTH, bool ACCUMULATE> struct tv_hopper_scale {
    typedef tv_gemm_args args;
    static constexpr int scratch_bytes = 0;
    static constexpr int pairs = WIDTH / 16;                   // of 8-column fragments
    static constexpr int batch = ACCUMULATE ? 8 : 1;           // pairs whose old values are fetched together
    struct early {
        float scale[2];
    };

    __device__ static early load(const args &a, const tv_hopper_place &p)
    {
        early e;
        for (int h = 0; h < 2; h++)
            e.scale[h] = p.row + 8 * h < a.m ? a.scale[p.row + 8 * h] : 0.0f;
        if (ACCUMULATE)
            tv_hopper_prefetch<WIDTH, sizeof(float)>(a.y, a.m, a.n, p);
        return e;
    }

    // Columns of fragments 2 pair and 2 pair + 1 that this lane stores.
    __device__ static float4 values(const int32_t (&acc)[WIDTH / 2], int pair, int h, float factor, bool odd)
    {
        const int32_t *x = acc + 8 * pair + 2 * h, *y = x + 4;
        float x0 = (float)x[0] * factor, x1 = (float)x[1] * factor, y0 = (float)y[0] * factor, y1 = (float)y[1] * factor;
        float r0 = __shfl_xor_sync(0xFFFFFFFFu, odd ? x0 : y0, 1), r1 = __shfl_xor_sync(0xFFFFFFFFu, odd ? x1 : y1, 1);
        return odd ? make_float4(r0, r1, y0, y1) : make_float4(x0, x1, r0, r1);
    }

    // `room` columns are left from `y` on; whole vectors when WHOLE.
    template <bool WHOLE> __device__ static float4 fetch(const float *y, int64_t room, bool vector)
    {
        if (WHOLE || (vector && room > 0))
            return *(const float4 *)y;
        float4 old = make_float4(0, 0, 0, 0);
        if (vector)
            return old;
        old.x = room > 0 ? y[0] : 0, old.y = room > 1 ? y[1] : 0, old.z = room > 2 ? y[2] : 0, old.w = room > 3 ? y[3] : 0;
        return old;
    }
    template <bool WHOLE> __device__ static void put(float *y, float4 v, int64_t room, bool vector)
    {
        if (WHOLE || (vector && room > 0)) {
            *(float4 *)y = v;
        } else if (!vector) {
            if (room > 0)
                y[0] = v.x;
            if (room > 1)
                y[1] = v.y;
            if (room > 2)
                y[2] = v.z;
            if (room > 3)
                y[3] = v.w;
        }
    }

    template <bool WHOLE>
    __device__ static void write(const args &a, const float factor[2], int64_t row, int64_t col, bool vector, const int32_t (&acc)[WIDTH / 2])
    {
        bool odd = threadIdx.x & 1;
        float *y = a.y + row * a.n + col;
        int64_t room[2] = {row < a.m ? a.n - col : 0, row + 8 < a.m ? a.n - col : 0}, down = 8 * a.n;
#pragma unroll
        for (int first = 0; first < pairs; first += batch) {
            float4 old[batch][2];
            if (ACCUMULATE)
#pragma unroll
                for (int i = 0; i < 2 * batch; i++) {
                    int right = 16 * (first + i / 2), h = i % 2;
                    old[i / 2][h] = fetch<WHOLE>(y + h * down + right, room[h] - right, vector);
                }
#pragma unroll
            for (int i = 0; i < 2 * batch; i++) {
                int right = 16 * (first + i / 2), h = i % 2;
                float4 v = values(acc, first + i / 2, h, factor[h], odd);
                if (ACCUMULATE) {
                    float4 o = old[i / 2][h];
                    v = make_float4(o.x + v.x, o.y + v.y, o.z + v.z, o.w + v.w);
                }
                put<WHOLE>(y + h * down + right, v, room[h] - right, vector);
            }
        }
    }

    __device__ static void store(const args &a, const early &e, const tv_hopper_place &p, const int32_t (&acc)[WIDTH / 2])
    {
        float unit = tv_exp2i(a.exponent), factor[2] = {e.scale[0] * unit, e.scale[1] * unit};
        int lane = p.thread % 4;
        int64_t col = p.col + lane / 2 * 4 + lane % 2 * 8;
        bool vector = a.n % 4 == 0 && ((uintptr_t)a.y & 15) == 0;
        // the same for all lanes of a warp
        bool whole = vector && p.col + WIDTH <= a.n && p.row - p.thread % TV_WARP / 4 + 16 <= a.m;
        if (whole)
            write<true>(a, factor, p.row, col, vector, acc);
        else
            write<false>(a, factor, p.row, col, vector, acc);
    }
};

#endif
