/* SPDX-License-Identifier: Apache-2.0 */
/* verify/html.c - the proof as one page: no script, nothing from elsewhere, light or dark as the
 * reader has it.
 *
 * 1. Every text that came from a file is escaped.
 * 2. Coordinates are whole numbers, so that no locale can spell them otherwise.
 */
#include "verify/proof.h"

#include "base/digest.h"
#include "base/error.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDE  720
#define HIGH  150
#define LEFT  56 /* of the plot's own area */
#define UNDER 18

static const char style[] =
    ":root{--ink:#1c1e21;--soft:#6a7078;--paper:#fff;--line:#d8dce1;--mark:#2563c9;--bad:#b3261e;"
    "--good:#1d7a3a}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e6e9;--soft:#9aa1a9;--paper:#16181b;"
    "--line:#33383e;--mark:#7fb0ff;--bad:#ff8a80;--good:#7fd49a}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);"
    "max-width:760px;margin:2rem auto;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;"
    "margin-top:2rem}table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem "
    ".6rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}th{color:var(--soft);"
    "font-weight:normal}code{font-size:.85em;overflow-wrap:anywhere}.good{color:var(--good)}"
    ".bad{color:var(--bad)}.soft{color:var(--soft)}svg{display:block;width:100%;height:auto}"
    "svg text{font:11px system-ui,sans-serif;fill:var(--soft)}.axis{stroke:var(--line)}"
    ".dot{fill:var(--mark);fill-opacity:.65}.bar{stroke:var(--mark);stroke-width:3}"
    "summary{cursor:pointer}";

/* [1] */
static void put_text(FILE *out, const char *text)
{
	for (; *text; text++)
		if (*text == '&' || *text == '<' || *text == '>' || *text == '"' || *text == '\'')
			fprintf(out, "&#%d;", *text);
		else if ((unsigned char)*text >= ' ')
			fputc(*text, out);
}

static void put_name(FILE *out, const char *name)
{
	put_text(out, lora__escape(name));
}

static void put_root(FILE *out, const char *what, const struct lora_sha256 *root)
{
	char hex[LORA_SHA256_HEX];

	lora__sha256_hex(root, hex);
	fprintf(out, "<tr><th>%s<td><code>%s</code>\n", what, hex);
}

static void put_level(FILE *out, const char *name, bool ran, bool passed)
{
	fprintf(out, "<tr><th>%s<td class=\"%s\">%s\n", name,
		!ran	 ? "soft"
		: passed ? "good"
			 : "bad",
		!ran	 ? "did not run"
		: passed ? "holds"
			 : "does not hold");
}

/* ---- plots */

/* A plot's frame with a label at the bottom and at the top of its y axis. */
static void begin_plot(FILE *out, const char *title, const char *low, const char *high)
{
	fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\"><title>", WIDE, HIGH + UNDER);
	put_text(out, title);
	fprintf(out,
		"</title><line class=\"axis\" x1=\"%d\" y1=\"0\" x2=\"%d\" y2=\"%d\"/>"
		"<line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>"
		"<text x=\"0\" y=\"11\">%s</text><text x=\"0\" y=\"%d\">%s</text>",
		LEFT, LEFT, HIGH, LEFT, HIGH, WIDE, HIGH, high, HIGH, low);
}

static void put_dot(FILE *out, double x, double y)
{
	fprintf(out, "<circle class=\"dot\" cx=\"%d\" cy=\"%d\" r=\"3\">", (int)lround(x),
		(int)lround(y));
}

/* One number of every tensor. */
typedef double value_fn(const struct lora_proof_tensor *t);

static double rho_of(const struct lora_proof_tensor *t)
{
	return t->rho;
}

static double unchanged_of(const struct lora_proof_tensor *t)
{
	return t->unchanged;
}

static double noise_of(const struct lora_proof_tensor *t)
{
	return t->noise;
}

static void plot_tensors(FILE *out, const struct lora_proof *proof, const char *title,
			 value_fn *value)
{
	double most = 0;
	int layers = 1;
	char high[32];

	for (size_t i = 0; i < proof->tensor_count; i++) {
		most = fmax(most, value(&proof->tensors[i])); /* fmax passes NaN by */
		if (proof->tensors[i].layer >= layers)
			layers = proof->tensors[i].layer + 1;
	}
	if (!(most > 0) || isinf(most))
		return;
	snprintf(high, sizeof(high), "%.3g %%", 100 * most);
	fprintf(out, "<h3>%s</h3>", title);
	begin_plot(out, title, "0", high);
	for (size_t i = 0; i < proof->tensor_count; i++) {
		const struct lora_proof_tensor *t = &proof->tensors[i];
		double y = value(t), x = LEFT + 8 + (t->layer + 0.5) * (WIDE - LEFT - 16) / layers;

		if (!(y >= 0))
			continue;
		put_dot(out, t->layer < 0 ? LEFT + 4 : x, HIGH - y / most * (HIGH - 8));
		fputs("<title>", out);
		put_name(out, t->name);
		fprintf(out, ": %.3g %%</title></circle>", 100 * y);
	}
	fprintf(out,
		"<text x=\"%d\" y=\"%d\">layer 0</text><text x=\"%d\" y=\"%d\">%d</text></svg>\n",
		LEFT, HIGH + 14, WIDE - 20, HIGH + 14, layers - 1);
}

static void plot_logits(FILE *out, const struct lora_proof_logits *l)
{
	double least = INFINITY, most = -INFINITY, side = 320;

	for (size_t i = 0; i < l->pair_count; i++)
		for (size_t k = 0; k < 2; k++) {
			least = fmin(least, (double)l->pairs[i][k]);
			most = fmax(most, (double)l->pairs[i][k]);
		}
	if (!(most > least))
		return;
	fprintf(out,
		"<svg viewBox=\"0 0 %d %d\" role=\"img\"><title>merged against unmerged "
		"logits</title><line class=\"axis\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"0\"/>",
		WIDE, (int)side + UNDER, LEFT, (int)side, LEFT + (int)side);
	for (size_t i = 0; i < l->pair_count; i++) {
		double x = ((double)l->pairs[i][0] - least) / (most - least),
		       y = ((double)l->pairs[i][1] - least) / (most - least);

		put_dot(out, LEFT + x * side, side - y * side);
		fputs("</circle>", out);
	}
	fprintf(out,
		"<text x=\"%d\" y=\"%d\">unmerged logit, %.3g to %.3g</text><text x=\"0\" "
		"y=\"11\">merged</text></svg>\n",
		LEFT, (int)side + 14, least, most);
}

/* Percent away from 1, as a place on the x axis that shows `reach` percent either way. */
static int place(double ratio, double reach)
{
	double x = fmin(fmax(100 * (ratio - 1) / reach, -1), 1);

	return (int)lround(LEFT + (x + 1) / 2 * (WIDE - LEFT - 10));
}

static void plot_interval(FILE *out, const char *what, const struct lora_proof_interval *interval,
			  double reach, int y)
{
	fprintf(out,
		"<text x=\"0\" y=\"%d\">%s</text><line class=\"bar\" x1=\"%d\" y1=\"%d\" x2=\"%d\" "
		"y2=\"%d\"/><circle class=\"dot\" cx=\"%d\" cy=\"%d\" r=\"5\"><title>%.4f [%.4f, "
		"%.4f]</title></circle>",
		y + 4, what, place(interval->low, reach), y, place(interval->high, reach), y,
		place(interval->ratio, reach), y, interval->ratio, interval->low, interval->high);
}

static void plot_latency(FILE *out, const struct lora_proof *proof)
{
	const struct lora_proof_latency *l = &proof->latency;
	double margin = 100 * proof->options.margin, reach = 4 * margin;

	fprintf(out, "<svg viewBox=\"0 0 %d 100\" role=\"img\"><title>latency</title>", WIDE);
	for (int k = -1; k <= 1; k++)
		fprintf(out, "<line class=\"axis\" x1=\"%d\" y1=\"0\" x2=\"%d\" y2=\"84\"/>",
			place(1 + k * margin / 100, reach), place(1 + k * margin / 100, reach));
	plot_interval(out, "merged", &l->merged, reach, 16);
	plot_interval(out, "control", &l->control, reach, 42);
	plot_interval(out, "unmerged", &l->unmerged, reach, 68);
	fprintf(out, "<text x=\"%d\" y=\"97\">equal within %.3g %%</text></svg>\n",
		place(1 - margin / 100, reach), margin);
}

/* ---- sections */

static void put_bytes(FILE *out, const struct lora_proof *proof)
{
	const struct lora_proof_bytes *b = &proof->bytes;

	fputs("<h2>Bytes</h2>\n", out);
	for (size_t i = 0; i < b->problem_count; i++) {
		fputs("<p class=\"bad\">", out);
		put_text(out, b->problems[i]);
	}
	if (!b->tensors)
		return;
	fprintf(out,
		"<p>%zu tensors, %zu not as they should be. Of %" PRIu64 " adapted weights %" PRIu64
		" have the predicted bits; %" PRIu64 " are one value of their type off, %" PRIu64
		" two, %" PRIu64 " more.\n",
		b->tensors, b->mismatched, b->elements, b->off[0], b->off[1], b->off[2], b->off[3]);
	if (isnan(b->noise))
		return;
	fprintf(
	    out,
	    "<p>The update is %.3g %% of the weights. Rounding turned %.3g %% of it into noise, "
	    "and left %.3g %% of the weights as they were.\n"
	    "<table><tr><th>in this type<th>noise<th>swallowed<th>adapted weights, MiB\n",
	    100 * b->rho, 100 * b->noise, 100 * b->unchanged);
	for (size_t i = 0; i < LORA_PROOF_TYPES; i++)
		fprintf(out, "<tr><td>%s<td>%.3g %%<td>%.3g %%<td>%.1f\n",
			lora_dtype_name(b->types[i].dtype), 100 * b->types[i].noise,
			100 * b->types[i].unchanged, (double)b->types[i].bytes / 1048576);
	fputs("</table>\n", out);
	plot_tensors(out, proof, "|update| / |W|, by layer", rho_of);
	plot_tensors(out, proof, "weights that rounding left as they were", unchanged_of);
	plot_tensors(out, proof, "noise / |update|", noise_of);
}

static void put_modules(FILE *out, const struct lora_proof *proof)
{
	const struct lora_proof_modules *m = &proof->modules;

	fprintf(out, "<h2>Modules</h2><p>%zu modules, %zu fail.\n", m->modules, m->failed);
	if (m->module) {
		fprintf(out, "<p>Nearest to its bound: %.3g of %.3g, ", m->worst, m->bound);
		put_name(out, m->module);
	}
	for (size_t i = 0; i < proof->tensor_count; i++)
		if (proof->tensors[i].module_problem) {
			fputs("<p class=\"bad\">", out);
			put_name(out, proof->tensors[i].name);
			fputs(": ", out);
			put_text(out, proof->tensors[i].module_problem);
		}
}

static void put_logits(FILE *out, const struct lora_proof *proof)
{
	const struct lora_proof_logits *l = &proof->logits;

	fputs("<h2>Logits</h2>\n", out);
	if (!l->tokens)
		return;
	fprintf(out,
		"<table><tr><th>KL(unmerged || merged)<td>%.3g\n<tr><th>KL(base || "
		"unmerged)<td>%.3g\n<tr><th>largest difference<td>%.3g\n<tr><th>RMS "
		"difference<td>%.3g\n<tr><th>same likeliest token<td>%.4g %%\n"
		"<tr><th>perplexity: base, unmerged, merged<td>%.6g, %.6g, %.6g\n",
		l->kl, l->kl_adapter, l->max_abs, l->rms, 100 * l->top1_agreement,
		l->perplexity_base, l->perplexity_unmerged, l->perplexity_merged);
	if (l->has_reference)
		fprintf(out, "<tr><th>KL(reference || merged)<td>%.3g\n", l->reference_kl);
	fputs("</table>\n", out);
	plot_logits(out, l);
}

static void put_tensors(FILE *out, const struct lora_proof *proof)
{
	if (!proof->surveyed)
		return;
	fputs("<h2>Tensors</h2><details><summary>All adapted tensors</summary><table><tr><th>name"
	      "<th>rank<th>scale<th>|D|/|W|<th>unchanged<th>noise<th>strength\n",
	      out);
	for (size_t i = 0; i < proof->tensor_count; i++) {
		const struct lora_proof_tensor *t = &proof->tensors[i];

		fputs("<tr><td><code>", out);
		put_name(out, t->name);
		fprintf(out, "</code><td>%u<td>%.4g<td>%.3g %%<td>%.3g %%<td>%.3g %%<td>%.6g\n",
			t->rank, t->scale, 100 * t->rho, 100 * t->unchanged, 100 * t->noise,
			t->strength);
	}
	fputs("</table></details>\n", out);
}

static bool all_hold(const struct lora_proof *p)
{
	return (!p->has_bytes || p->bytes.passed) && (!p->has_modules || p->modules.passed) &&
	       (!p->has_logits || p->logits.passed) && (!p->has_latency || p->latency.passed);
}

static void put_page(FILE *out, const struct lora_proof *proof, const char *name)
{
	fprintf(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
		     "<meta name=\"generator\" content=\"loractl\">\n<meta name=\"viewport\" "
		     "content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light "
		     "dark\">\n<title>");
	put_name(out, name);
	fprintf(out, "</title><style>%s</style></head><body>\n<h1>", style);
	put_name(out, name);
	fprintf(out, ": <span class=\"%s\">%s</span></h1>\n<table>\n",
		all_hold(proof) ? "good" : "bad",
		all_hold(proof) ? "is base + adapters" : "is not base + adapters");
	put_level(out, "bytes", proof->has_bytes, proof->bytes.passed);
	put_level(out, "modules", proof->has_modules, proof->modules.passed);
	put_level(out, "logits", proof->has_logits, proof->logits.passed);
	put_level(out, "latency", proof->has_latency, proof->latency.passed);
	put_root(out, "merged", &proof->merged->root);
	put_root(out, "base", &proof->base->root);
	for (size_t i = 0; i < proof->input_count; i++) {
		fputs("<tr><th>adapter<td>", out);
		put_name(out, proof->inputs[i].adapter->name);
		fprintf(out, ", weight %g\n", proof->inputs[i].weight);
	}
	fputs("</table>\n", out);
	if (proof->refused.status) {
		fputs("<p class=\"bad\">", out);
		put_text(out, proof->refused.message);
	}
	if (proof->has_bytes)
		put_bytes(out, proof);
	if (proof->has_modules)
		put_modules(out, proof);
	if (proof->has_logits)
		put_logits(out, proof);
	if (proof->has_latency) {
		fputs("<h2>Latency</h2><p>", out);
		put_text(out, proof->latency.difference ? proof->latency.difference
							: "The same operations, token for token.");
		if (proof->latency.rounds)
			plot_latency(out, proof);
	}
	put_tensors(out, proof);
	fputs("</body></html>\n", out);
}

enum lora_status lora_proof_html(const struct lora_proof *proof, const char *name, char **text,
				 struct lora_error *err)
{
	size_t size = 0;
	FILE *out;
	bool failed;

	*text = NULL;
	out = open_memstream(text, &size);
	if (!out)
		return lora__fail_memory(err);
	put_page(out, proof, name);
	failed = ferror(out) != 0;
	if (fclose(out) || failed) {
		free(*text);
		*text = NULL;
		return lora__fail_memory(err);
	}
	return LORA_OK;
}
