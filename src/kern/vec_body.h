/* SPDX-License-Identifier: Apache-2.0 */
/* kern/vec_body.h - the kernels of vec.h, once, in terms of a vector of LANES floats.
 *
 * A file for one instruction set defines LANES, ISA and NAME, includes this one, and says how
 * 16-bit elements are loaded, which compilers do not find out for themselves. The compiler's vector
 * types turn into that set's registers; where `a * b + c` stands they become a fused step (these
 * files are compiled with -ffp-contract=fast). Everything is static: the linker must not take one
 * set's function for all.
 *
 * Tails: what is left behind the last whole vector goes through a padded copy, so that every
 * element sees the same arithmetic wherever it stands.
 */
#include <math.h>
#include <string.h>

#include "kern/vec.h"

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef uint32_t vu __attribute__((vector_size(LANES * 4)));
typedef uint16_t vh __attribute__((vector_size(LANES * 2)));

static inline vf load_f32(const float *p)
{
	vf v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store(float *p, vf v)
{
	memcpy(p, &v, sizeof(v));
}

static inline vf splat(float x)
{
	return x - (vf){0};
}

static vf load_bf16(const uint16_t *p);
static vf load_f16(const uint16_t *p);

/* The first n < LANES elements, then zeros. */
static inline vf load_part(const float *p, size_t n)
{
	vf v = {0};

	memcpy(&v, p, n * sizeof(float));
	return v;
}

static inline void store_part(float *p, vf v, size_t n)
{
	memcpy(p, &v, n * sizeof(float));
}

static inline float sum_of(vf v)
{
	typedef float quarter __attribute__((vector_size(16)));
	quarter part[LANES / 4];

	memcpy(part, &v, sizeof(v));
	for (size_t width = LANES / 8; width > 0; width /= 2)
		for (size_t i = 0; i < width; i++)
			part[i] += part[i + width];
	return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
}

/* Where the mask is set a, else b. */
static inline vf choose(vi mask, vf a, vf b)
{
	return (vf)((mask & (vi)a) | (~mask & (vi)b));
}

static inline float max_of(const float *x, size_t n)
{
	float lane[LANES], most = x[0];
	size_t i = 0;

	if (n >= LANES) {
		vf v = load_f32(x);

		for (i = LANES; i + LANES <= n; i += LANES) {
			vf next = load_f32(x + i);

			v = choose(next > v, next, v);
		}
		store(lane, v);
		for (size_t k = 0; k < LANES; k++)
			most = lane[k] > most ? lane[k] : most;
	}
	for (; i < n; i++)
		most = x[i] > most ? x[i] : most;
	return most;
}

/* e^x: x = k ln 2 + r with |r| <= ln(2)/2, then a polynomial (Cephes' expf, Moshier 1992) times
 * 2^k. Arguments are held to where the result is a normal number. */
static inline vf exp_of(vf x)
{
	const vf magic = splat(0x1.8p23f); /* adding it rounds to an integer */
	vf k, r, p, scale;

	x = choose(x > splat(88.37f), splat(88.37f), x);
	x = choose(x < splat(-87.33f), splat(-87.33f), x);
	k = (x * splat(0x1.715476p0f) + magic) - magic;
	r = x - k * splat(0x1.62ep-1f);	    /* the upper bits of ln 2: the product is exact */
	r = r - k * splat(0x1.0bfbe8p-15f); /* and the rest of it */
	p = splat(1.9875691500e-4f);
	p = p * r + splat(1.3981999507e-3f);
	p = p * r + splat(8.3334519073e-3f);
	p = p * r + splat(4.1665795894e-2f);
	p = p * r + splat(1.6666665459e-1f);
	p = p * r + splat(5.0000001201e-1f);
	p = p * (r * r) + r + splat(1.0f);
	/* k + magic holds k in its low bits, whatever k's sign; a NaN's are of no matter */
	scale = (vf)(((vu)(k + magic) << 23) + (vu)splat(1.0f));
	return p * scale;
}

#define GEMV(name, type, load)                                                                     \
	/* The rest of a row behind the last whole vector. */                                      \
	static inline float name##_tail(const type *w, const float *x, size_t n)                   \
	{                                                                                          \
		type part[LANES] = {0};                                                            \
                                                                                                   \
		memcpy(part, w, n * sizeof(type));                                                 \
		return sum_of(load(part) * load_part(x, n));                                       \
	}                                                                                          \
                                                                                                   \
	static void name(float *y, const type *W, size_t ld, const float *x, size_t rows,          \
			 size_t cols)                                                              \
	{                                                                                          \
		size_t whole = cols - cols % LANES, i = 0;                                         \
                                                                                                   \
		for (; i + 4 <= rows; i += 4) {                                                    \
			const type *w = W + i * ld;                                                \
			vf a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};                                 \
			vf b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};                                 \
			size_t j = 0;                                                              \
                                                                                                   \
			for (; j + 2 * LANES <= whole; j += 2 * LANES) {                           \
				vf u = load_f32(x + j), v = load_f32(x + j + LANES);               \
                                                                                                   \
				a0 += load(w + j) * u;                                             \
				a1 += load(w + ld + j) * u;                                        \
				a2 += load(w + 2 * ld + j) * u;                                    \
				a3 += load(w + 3 * ld + j) * u;                                    \
				b0 += load(w + j + LANES) * v;                                     \
				b1 += load(w + ld + j + LANES) * v;                                \
				b2 += load(w + 2 * ld + j + LANES) * v;                            \
				b3 += load(w + 3 * ld + j + LANES) * v;                            \
			}                                                                          \
			for (; j < whole; j += LANES) {                                            \
				vf u = load_f32(x + j);                                            \
                                                                                                   \
				a0 += load(w + j) * u;                                             \
				a1 += load(w + ld + j) * u;                                        \
				a2 += load(w + 2 * ld + j) * u;                                    \
				a3 += load(w + 3 * ld + j) * u;                                    \
			}                                                                          \
			y[i] = sum_of(a0 + b0);                                                    \
			y[i + 1] = sum_of(a1 + b1);                                                \
			y[i + 2] = sum_of(a2 + b2);                                                \
			y[i + 3] = sum_of(a3 + b3);                                                \
			for (size_t k = 0; k < 4 && j < cols; k++)                                 \
				y[i + k] += name##_tail(w + k * ld + j, x + j, cols - j);          \
		}                                                                                  \
		for (; i < rows; i++) {                                                            \
			const type *w = W + i * ld;                                                \
			vf a = {0}, b = {0};                                                       \
			size_t j = 0;                                                              \
                                                                                                   \
			for (; j + 2 * LANES <= whole; j += 2 * LANES) {                           \
				a += load(w + j) * load_f32(x + j);                                \
				b += load(w + j + LANES) * load_f32(x + j + LANES);                \
			}                                                                          \
			for (; j < whole; j += LANES)                                              \
				a += load(w + j) * load_f32(x + j);                                \
			y[i] = sum_of(a + b);                                                      \
			if (j < cols)                                                              \
				y[i] += name##_tail(w + j, x + j, cols - j);                       \
		}                                                                                  \
	}

GEMV(gemv_f32, float, load_f32)
GEMV(gemv_f16, uint16_t, load_f16)
GEMV(gemv_bf16, uint16_t, load_bf16)

static void mix(float *out, const float *V, size_t ld, const float *p, size_t rows, size_t cols)
{
	size_t j = 0;

	for (; j + 4 * LANES <= cols; j += 4 * LANES) {
		vf a = {0}, b = {0}, c = {0}, d = {0};

		for (size_t i = 0; i < rows; i++) {
			const float *v = V + i * ld + j;
			vf w = splat(p[i]);

			a += w * load_f32(v);
			b += w * load_f32(v + LANES);
			c += w * load_f32(v + 2 * LANES);
			d += w * load_f32(v + 3 * LANES);
		}
		store(out + j, a);
		store(out + j + LANES, b);
		store(out + j + 2 * LANES, c);
		store(out + j + 3 * LANES, d);
	}
	for (; j < cols; j += LANES) {
		size_t n = cols - j < LANES ? cols - j : LANES;
		vf a = {0};

		for (size_t i = 0; i < rows; i++)
			a += splat(p[i]) * load_part(V + i * ld + j, n);
		store_part(out + j, a, n);
	}
}

/* Vectors whose exponentials are added before their sum is added to the others': beside one large
 * term a long row of small ones would be rounded away, and always in the same direction. */
#define RUN 16

static void softmax(float *x, float scale, size_t n)
{
	vf shift = splat(scale * max_of(x, n)), s = splat(scale), sum = {0};
	size_t i = 0;
	float total;

	while (i + LANES <= n) {
		vf part = {0};

		for (size_t k = 0; k < RUN && i + LANES <= n; k++, i += LANES) {
			vf e = exp_of(s * load_f32(x + i) - shift);

			store(x + i, e);
			part += e;
		}
		sum += part;
	}
	total = sum_of(sum);
	if (i < n) {
		store_part(x + i, exp_of(s * load_part(x + i, n - i) - shift), n - i);
		total += sum_of(load_part(x + i, n - i));
	}
	s = splat(1 / total);
	for (i = 0; i + LANES <= n; i += LANES)
		store(x + i, load_f32(x + i) * s);
	for (; i < n; i++)
		x[i] *= 1 / total;
}

static double log_sum_exp(const float *x, size_t n)
{
	float most = max_of(x, n), rest[LANES] = {0};
	vf shift = splat(most);
	double total = 0;
	size_t i = 0;

	while (i + LANES <= n) {
		vf part = {0};

		for (size_t k = 0; k < RUN && i + LANES <= n; k++, i += LANES)
			part += exp_of(load_f32(x + i) - shift);
		total += (double)sum_of(part);
	}
	if (i < n) {
		store(rest, exp_of(load_part(x + i, n - i) - shift));
		for (size_t k = 0; i + k < n; k++)
			total += (double)rest[k];
	}
	return (double)most + log(total);
}

static inline float sum_squares(const float *x, float mean, size_t n)
{
	vf a = {0}, m = splat(mean);
	size_t i = 0;
	float total;

	for (; i + LANES <= n; i += LANES) {
		vf v = load_f32(x + i) - m;

		a += v * v;
	}
	total = sum_of(a);
	for (; i < n; i++)
		total += (x[i] - mean) * (x[i] - mean);
	return total;
}

static void rms_norm(float *out, const float *x, const float *g, float eps, size_t n)
{
	float q = 1 / sqrtf(sum_squares(x, 0, n) / (float)n + eps);
	vf scale = splat(q);
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		store(out + i, load_f32(g + i) * (load_f32(x + i) * scale));
	for (; i < n; i++)
		out[i] = g[i] * (x[i] * q);
}

static void layer_norm(float *out, const float *x, const float *g, const float *b, float eps,
		       size_t n)
{
	vf a = {0};
	size_t i = 0;
	float mean, q;

	for (; i + LANES <= n; i += LANES)
		a += load_f32(x + i);
	mean = sum_of(a);
	for (; i < n; i++)
		mean += x[i];
	mean /= (float)n;
	q = 1 / sqrtf(sum_squares(x, mean, n) / (float)n + eps);
	for (i = 0; i + LANES <= n; i += LANES)
		store(out + i, load_f32(g + i) * ((load_f32(x + i) - splat(mean)) * splat(q)) +
				   load_f32(b + i));
	for (; i < n; i++)
		out[i] = g[i] * ((x[i] - mean) * q) + b[i];
}

static void rotate(float *out, const float *x, const float *c, const float *s, size_t half)
{
	size_t i = 0;

	for (; i + LANES <= half; i += LANES) {
		vf a = load_f32(x + i), b = load_f32(x + half + i);
		vf cos = load_f32(c + i), sin = load_f32(s + i);

		store(out + i, a * cos - b * sin);
		store(out + half + i, b * cos + a * sin);
	}
	for (; i < half; i++) {
		float a = x[i], b = x[half + i];

		out[i] = a * c[i] - b * s[i];
		out[half + i] = b * c[i] + a * s[i];
	}
}

static inline vf silu_of(vf x)
{
	return x / (splat(1.0f) + exp_of(-x));
}

static void silu_mul(float *out, const float *g, const float *u, size_t n)
{
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		store(out + i, silu_of(load_f32(g + i)) * load_f32(u + i));
	if (i < n)
		store_part(out + i, silu_of(load_part(g + i, n - i)) * load_part(u + i, n - i),
			   n - i);
}

/* x/2 (1 + tanh z) = x / (1 + e^(-2z)) */
static inline vf gelu_of(vf x)
{
	vf z = x * (splat(1.5957691216f) + splat(0.0713548163f) * x * x);

	return x / (splat(1.0f) + exp_of(-z));
}

static void gelu(float *out, const float *x, size_t n)
{
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		store(out + i, gelu_of(load_f32(x + i)));
	if (i < n)
		store_part(out + i, gelu_of(load_part(x + i, n - i)), n - i);
}

static void add(float *y, float s, const float *x, size_t n)
{
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		store(y + i, load_f32(y + i) + splat(s) * load_f32(x + i));
	for (; i < n; i++)
		y[i] += s * x[i];
}

static void affine(float *y, const float *g, const float *b, size_t n)
{
	for (size_t i = 0; g && i < n; i++)
		y[i] *= g[i];
	for (size_t i = 0; b && i < n; i++)
		y[i] += b[i];
}

const struct lora_vec NAME = {
    .isa = ISA,
    .gemv_f32 = gemv_f32,
    .gemv_f16 = gemv_f16,
    .gemv_bf16 = gemv_bf16,
    .mix = mix,
    .softmax = softmax,
    .log_sum_exp = log_sum_exp,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rotate = rotate,
    .silu_mul = silu_mul,
    .gelu = gelu,
    .add = add,
    .affine = affine,
};
