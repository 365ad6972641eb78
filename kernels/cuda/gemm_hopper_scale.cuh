// Epilogue of forward and grad-x on Hopper: v = (float)acc (scale[i] 2^exponent); y = v or y + v.
//
// Each thread stores the pairs of columns that it holds: four lanes fill a 32-byte sector. A multiprocessor hands about 32 bytes a
// cycle to L2 whatever the width of the stores; 16-byte stores, for which lanes would have to exchange values, proved slower.
#ifndef TV_KERNELS_GEMM_HOPPER_SCALE_CUH
#define TV_KERNELS_GEMM_HOPPER_SCALE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

template <bool ACCUMULATE> struct tv_hopper_scale {
    typedef tv_gemm_args args;
    static constexpr int scratch_bytes = 0;
    static constexpr int pairs = TV_HOPPER_WIDTH / 8; // of columns, of a row
    struct early {
        float scale[2];
    };

    // The pairs of columns of a thread's two rows.
    struct view {
        float *y;
        int64_t down, room[2]; // elements between the rows; columns left in each
        bool pairwise;         // pairs lie on 8-byte borders

        __device__ view(const args &a, const tv_hopper_place &p)
        {
            int64_t col = p.col + p.thread % 4 * 2;
            y = a.y + p.row * a.n + col, down = 8 * a.n;
            room[0] = p.row < a.m ? a.n - col : 0, room[1] = p.row + 8 < a.m ? a.n - col : 0;
            pairwise = a.n % 2 == 0 && ((uintptr_t)a.y & 7) == 0;
        }
    };

    __device__ static early load(const args &a, const tv_hopper_place &p)
    {
        early e;
#pragma unroll
        for (int h = 0; h < 2; h++)
            e.scale[h] = p.row + 8 * h < a.m ? a.scale[p.row + 8 * h] : 0.0f;
        return e;
    }

    __device__ static float2 fetch(const view &v, int right, int h)
    {
        const float *y = v.y + h * v.down + right;
        int64_t room = v.room[h] - right;
        if (v.pairwise && room > 0)
            return *(const float2 *)y;
        return make_float2(room > 0 ? y[0] : 0.0f, room > 1 ? y[1] : 0.0f);
    }

    __device__ static void put(const view &v, int right, int h, float2 value)
    {
        float *y = v.y + h * v.down + right;
        int64_t room = v.room[h] - right;
        if (v.pairwise && room > 0) {
            *(float2 *)y = value;
            return;
        }
        if (room > 0)
            y[0] = value.x;
        if (room > 1)
            y[1] = value.y;
    }

    // WHOLE: no edge, and pairwise.
    template <bool WHOLE>
    __device__ static void write(const view &v, const float factor[2], const int32_t (&sums)[TV_HOPPER_SUMS])
    {
        float2 old[pairs][2];
#pragma unroll
        for (int i = 0; ACCUMULATE && i < 2 * pairs; i++)
            old[i / 2][i % 2] = fetch(v, i / 2 * 8, i % 2);
#pragma unroll
        for (int i = 0; i < 2 * pairs; i++) {
            int right = i / 2 * 8, h = i % 2;
            float2 value = make_float2((float)sums[2 * i] * factor[h], (float)sums[2 * i + 1] * factor[h]);
            if (ACCUMULATE)
                value = make_float2(old[i / 2][h].x + value.x, old[i / 2][h].y + value.y);
            if (WHOLE)
                *(float2 *)(v.y + h * v.down + right) = value;
            else
                put(v, right, h, value);
        }
    }

    __device__ static void store(const args &a, const early &e, const tv_hopper_place &p,
                                 const int32_t (&sums)[TV_HOPPER_SUMS])
    {
        float unit = tv_exp2i(a.exponent), factor[2] = {e.scale[0] * unit, e.scale[1] * unit};
        view v(a, p);
        if (v.pairwise && tv_hopper_inside(a.m, a.n, p))
            write<true>(v, factor, sums);
        else
            write<false>(v, factor, sums);
    }
};

#endif
