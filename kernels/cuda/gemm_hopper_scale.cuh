// Epilogue of forward and grad-x on Hopper: v = (float)acc (scale[i] 2^exponent); y = v or y + v.
//
// Each thread stores the pairs of columns that it holds: four lanes fill a 32-byte sector. A multiprocessor hands about 32 bytes a
// cycle to L2 whatever the width of the stores; 16-byte stores, for which lanes would have to exchange values, proved slower.
#ifndef TV_KERNELS_GEMM_HOPPER_SCALE_CUH
#define TV_KERNELS_GEMM_HOPPER_SCALE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

template <int WIDTH, bool ACCUMULATE> struct tv_hopper_scale {
    typedef tv_gemm_args args;
    static constexpr int scratch_bytes = 0;
    static constexpr int pairs = WIDTH / 16; // of columns, of a row, in one half
    struct early {
        float scale[2];
    };
    struct old {
        float2 y[ACCUMULATE ? pairs : 1][2];
    };

    // The pairs of columns of a thread's two rows in one half.
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

    __device__ static void ready(const args &a, early &e, const tv_hopper_place &p)
    {
        (void)p;
        float unit = tv_exp2i(a.exponent);
        e.scale[0] *= unit, e.scale[1] *= unit;
    }

    __device__ static old fetch(const args &a, const tv_hopper_place &p)
    {
        old o;
        view v(a, p);
#pragma unroll
        for (int i = 0; ACCUMULATE && i < 2 * pairs; i++) {
            int right = i / 2 * 8, h = i % 2;
            const float *y = v.y + h * v.down + right;
            int64_t room = v.room[h] - right;
            if (v.pairwise && room > 0)
                o.y[i / 2][h] = *(const float2 *)y;
            else
                o.y[i / 2][h] = make_float2(room > 0 ? y[0] : 0.0f, room > 1 ? y[1] : 0.0f);
        }
        return o;
    }

    // WHOLE: no edge, and pairwise.
    template <bool WHOLE>
    __device__ static void write(const view &v, const early &e, const old &o, const int32_t (&sums)[WIDTH / 4])
    {
#pragma unroll
        for (int i = 0; i < 2 * pairs; i++) {
            int right = i / 2 * 8, h = i % 2;
            float *y = v.y + h * v.down + right;
            float2 out = make_float2((float)sums[2 * i] * e.scale[h], (float)sums[2 * i + 1] * e.scale[h]);
            if (ACCUMULATE)
                out = make_float2(o.y[i / 2][h].x + out.x, o.y[i / 2][h].y + out.y);
            if (WHOLE || (v.pairwise && right < v.room[h])) {
                *(float2 *)y = out;
                continue;
            }
            if (right < v.room[h])
                y[0] = out.x;
            if (right + 1 < v.room[h])
                y[1] = out.y;
        }
    }

    __device__ static void store(const args &a, const early &e, const tv_hopper_place &p, int right, const old &o,
                                 const int32_t (&sums)[WIDTH / 4])
    {
        (void)right;
        view v(a, p);
        if (v.pairwise && tv_hopper_inside<WIDTH / 2>(a.m, a.n, p))
            write<true>(v, e, o, sums);
        else
            write<false>(v, e, o, sums);
    }
};

#endif
