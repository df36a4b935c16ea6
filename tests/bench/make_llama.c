/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/make_llama.c - a Llama of any size and adapters for it, of random weights: something
 *to measure with.
 *
 *	make_llama DIR LAYERS SHARDS RANK...
 *
 * DIR/base gets config.json and SHARDS bf16 safetensors files with an index; DIR/adapter-rR, for
 *every RANK, a PEFT adapter on all seven linears in f32. 2048 wide, 5632 inner, 32 heads, 4 of them
 *for keys and values, a vocabulary of 32,000; with 22 layers 1.1 billion parameters. W ~ N(0,
 *0.02), A ~ N(0, 0.02), B ~ N(0, 0.002): the update is then a few per cent of the weight. Written
 *straight from the safetensors format, sharing no code with what is measured.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { WIDE = 2048, INNER = 5632, KV = 256, VOCABULARY = 32000, NAME = 128, MODULES = 7 };

static const struct {
	const char *name;
	uint64_t out, in;
} modules[MODULES] = {
    {"self_attn.q_proj", WIDE, WIDE}, {"self_attn.k_proj", KV, WIDE},
    {"self_attn.v_proj", KV, WIDE},   {"self_attn.o_proj", WIDE, WIDE},
    {"mlp.gate_proj", INNER, WIDE},   {"mlp.up_proj", INNER, WIDE},
    {"mlp.down_proj", WIDE, INNER},
};

struct tensor {
	char name[NAME];
	uint64_t rows, cols; /* cols 0: a vector */
	float sigma;
};

struct list {
	struct tensor *tensor;
	size_t count;
};

static void die(const char *what)
{
	fprintf(stderr, "make_llama: %s: %s\n", what, strerror(errno));
	exit(4);
}

static void add(struct list *list, float sigma, uint64_t rows, uint64_t cols, const char *name)
{
	struct tensor *t;

	list->tensor = realloc(list->tensor, (list->count + 1) * sizeof(*list->tensor));
	if (!list->tensor)
		die("memory");
	t = &list->tensor[list->count++];
	memset(t, 0, sizeof(*t));
	snprintf(t->name, sizeof(t->name), "%s", name);
	t->rows = rows;
	t->cols = cols;
	t->sigma = sigma;
}

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* The sum of four 16-bit uniforms: near enough to a normal of variance 1. */
static float normal(void)
{
	uint64_t x = next();
	double sum = (double)(x & 0xffff) + (double)(x >> 16 & 0xffff) +
		     (double)(x >> 32 & 0xffff) + (double)(x >> 48);

	return (float)((sum / 65535 - 2) * sqrt(3));
}

static uint16_t bf16(float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static void write_tensor(FILE *file, const struct tensor *t, size_t width)
{
	static uint8_t buffer[1 << 16];
	uint64_t left = t->rows * (t->cols ? t->cols : 1);

	while (left) {
		size_t n = left < sizeof(buffer) / width ? (size_t)left : sizeof(buffer) / width;

		for (size_t i = 0; i < n; i++) {
			float value = t->sigma > 0 ? t->sigma * normal() : 1;
			uint16_t half = bf16(value);

			memcpy(buffer + i * width, width == 2 ? (void *)&half : (void *)&value,
			       width);
		}
		if (fwrite(buffer, width, n, file) != n)
			die("write");
		left -= n;
	}
}

static void write_file(const char *path, const struct tensor *tensors, size_t count, size_t width)
{
	FILE *file = fopen(path, "wb");
	char *head = malloc(count * (NAME + 128) + 64);
	uint64_t at = 0, length;
	size_t n;

	if (!file || !head)
		die(path);
	n = (size_t)sprintf(head, "{\"__metadata__\":{\"format\":\"pt\"}");
	for (size_t i = 0; i < count; i++) {
		const struct tensor *t = &tensors[i];
		uint64_t size = t->rows * (t->cols ? t->cols : 1) * width;

		n += (size_t)sprintf(head + n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%" PRIu64,
				     t->name, width == 2 ? "BF16" : "F32", t->rows);
		if (t->cols)
			n += (size_t)sprintf(head + n, ",%" PRIu64, t->cols);
		n += (size_t)sprintf(head + n, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at,
				     at + size);
		at += size;
	}
	head[n++] = '}';
	while (n % 8)
		head[n++] = ' ';
	length = n;
	for (int i = 0; i < 8; i++)
		fputc((int)(length >> (8 * i) & 0xff), file);
	if (fwrite(head, 1, n, file) != n)
		die(path);
	for (size_t i = 0; i < count; i++)
		write_tensor(file, &tensors[i], width);
	if (fclose(file))
		die(path);
	free(head);
}

static FILE *text_file(const char *dir, const char *name)
{
	char path[4096];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	if (!file)
		die(path);
	return file;
}

static void make_dir(const char *path)
{
	if (mkdir(path, 0777) && errno != EEXIST)
		die(path);
}

static void write_base(const char *dir, int layers, size_t shards)
{
	struct list list = {NULL, 0};
	FILE *index, *config = text_file(dir, "config.json");
	char name[NAME], path[4096];
	size_t each;

	fprintf(config,
		"{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
		"\"hidden_size\": %d, \"intermediate_size\": %d, "
		"\"num_hidden_layers\": %d, \"num_attention_heads\": 32, \"num_key_value_heads\": "
		"4, \"vocab_size\": %d, "
		"\"rms_norm_eps\": 1e-05, \"tie_word_embeddings\": false, \"torch_dtype\": "
		"\"bfloat16\"}\n",
		WIDE, INNER, layers, VOCABULARY);
	if (fclose(config))
		die("config.json");
	add(&list, 0.02f, VOCABULARY, WIDE, "model.embed_tokens.weight");
	for (int l = 0; l < layers; l++) {
		for (int m = 0; m < MODULES; m++) {
			snprintf(name, sizeof(name), "model.layers.%d.%s.weight", l,
				 modules[m].name);
			add(&list, 0.02f, modules[m].out, modules[m].in, name);
		}
		snprintf(name, sizeof(name), "model.layers.%d.input_layernorm.weight", l);
		add(&list, 0, WIDE, 0, name);
		snprintf(name, sizeof(name), "model.layers.%d.post_attention_layernorm.weight", l);
		add(&list, 0, WIDE, 0, name);
	}
	add(&list, 0, WIDE, 0, "model.norm.weight");
	add(&list, 0.02f, VOCABULARY, WIDE, "lm_head.weight");
	each = (list.count + shards - 1) / shards;
	index = text_file(dir, "model.safetensors.index.json");
	fprintf(index, "{\"metadata\": {}, \"weight_map\": {");
	for (size_t s = 0; s < shards; s++) {
		size_t first = s * each,
		       count = list.count - first < each ? list.count - first : each;

		for (size_t i = first; i < first + count; i++)
			fprintf(index, "%s\"%s\": \"model-%05zu-of-%05zu.safetensors\"",
				i ? ",\n" : "\n", list.tensor[i].name, s + 1, shards);
		snprintf(path, sizeof(path), "%s/model-%05zu-of-%05zu.safetensors", dir, s + 1,
			 shards);
		write_file(path, list.tensor + first, count, 2);
	}
	fprintf(index, "}}\n");
	if (fclose(index))
		die("index");
	free(list.tensor);
}

static void write_adapter(const char *dir, int layers, uint64_t rank)
{
	struct list list = {NULL, 0};
	FILE *config = text_file(dir, "adapter_config.json");
	char name[NAME], path[4096];

	fprintf(config,
		"{\"peft_type\": \"LORA\", \"r\": %" PRIu64 ", \"lora_alpha\": %" PRIu64
		", \"bias\": \"none\", \"target_modules\": "
		"[\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", "
		"\"down_proj\"], "
		"\"task_type\": \"CAUSAL_LM\"}\n",
		rank, 2 * rank);
	if (fclose(config))
		die("adapter_config.json");
	for (int l = 0; l < layers; l++)
		for (int m = 0; m < MODULES; m++) {
			snprintf(name, sizeof(name),
				 "base_model.model.model.layers.%d.%s.lora_A.weight", l,
				 modules[m].name);
			add(&list, 0.02f, rank, modules[m].in, name);
			snprintf(name, sizeof(name),
				 "base_model.model.model.layers.%d.%s.lora_B.weight", l,
				 modules[m].name);
			add(&list, 0.002f, modules[m].out, rank, name);
		}
	snprintf(path, sizeof(path), "%s/adapter_model.safetensors", dir);
	write_file(path, list.tensor, list.count, 4);
	free(list.tensor);
}

int main(int argc, char **argv)
{
	char path[4096];
	int layers = argc > 2 ? atoi(argv[2]) : 0, shards = argc > 3 ? atoi(argv[3]) : 0;

	if (argc < 4 || layers < 1 || shards < 1) {
		fprintf(stderr, "usage: make_llama DIR LAYERS SHARDS RANK...\n");
		return 2;
	}
	make_dir(argv[1]);
	snprintf(path, sizeof(path), "%s/base", argv[1]);
	make_dir(path);
	write_base(path, layers, (size_t)shards);
	for (int i = 4; i < argc; i++) {
		snprintf(path, sizeof(path), "%s/adapter-r%s", argv[1], argv[i]);
		make_dir(path);
		write_adapter(path, layers, strtoull(argv[i], NULL, 10));
	}
	return 0;
}
