/* SPDX-License-Identifier: Apache-2.0 */
/* cli/main.c - from argv to a command and back to an exit code
 *
 * The line is read in two steps with one parser: the options in front of the command's name, with
 * the global table; then the rest, with the command's table first and the global one beside it.
 * What was given in the first step counts in the second (given twice is given twice).
 *
 * Exit codes are the library's enum lora_status, unchanged.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <loractl/version.h>

#include "cmd.h"

/* One run of the program: what was read so far. */
struct run {
	struct ui ui;
	struct cmd_globals globals;
	const struct cmd *cmd; /* NULL in front of the command's name */
	void *args;
	struct opt_set sets[CMD_SETS];
	struct opt_scan scan;
	struct lora_error err;
};

/* Descriptors 0 to 2 are open from here on. Were one of them closed, the next file that is opened
 * would take its number, and an error line could end up inside an output. They are opened the wrong
 * way round, so that using them still fails. */
static void occupy_standard_streams(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) == -1 && errno == EBADF)
			if (open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
				_exit(LORA_SYSTEM);
}

static enum lora_status print_version(struct run *run)
{
	const char *cpu = lora_cpu_name();
	FILE *out = ui_out(&run->ui);

	fprintf(out, "loractl %s\n", lora_version());
	if (!run->globals.verbose)
		return LORA_OK;
	if (!cpu)
		return ui_failf(
		    &run->ui, LORA_USAGE,
		    "bad value of LORACTL_CPU: this processor cannot run '%s': unset it",
		    getenv("LORACTL_CPU") ? getenv("LORACTL_CPU") : "");
	fprintf(out, "kernels: %s\n", cpu);
#if defined(__VERSION__) && defined(__clang__)
	fprintf(out, "compiler: %s\n", __VERSION__);
#elif defined(__VERSION__)
	fprintf(out, "compiler: gcc %s\n", __VERSION__);
#endif
	return LORA_OK;
}

/* The line went wrong: says so, with what was read of the global options up to there. */
static enum lora_status report(struct run *run)
{
	ui_set_color(&run->ui, (enum ui_color)run->globals.color);
	return ui_fail(&run->ui, &run->err);
}

/* Too few or too many operands is a usage error that names the first one. */
static enum lora_status check_operands(struct run *run)
{
	const struct operand *operand = run->cmd->operands;
	size_t have = run->scan.noperand, place = 0;

	for (; operand && operand->name; operand++, place++) {
		if (!operand->optional && place >= have)
			return opt_fail(&run->err, LORA_USAGE, "an argument is missing: give %s",
					operand->name);
		if (operand->repeats)
			return LORA_OK;
	}
	if (have > place)
		return opt_fail(&run->err, LORA_USAGE,
				"one argument too many: '%s': '-h' lists them",
				run->scan.operands[place]);
	return LORA_OK;
}

/* Whether the global options contradict one another; puts them into force. */
static enum lora_status apply_globals(struct run *run)
{
	const struct cmd_globals *globals = &run->globals;

	if (globals->quiet && globals->verbose)
		return opt_fail(&run->err, LORA_USAGE,
				"options '--quiet' and '--verbose' exclude each other: give one");
	if (globals->json && run->cmd && !(run->cmd->flags & CMD_REPORTS))
		return opt_fail(&run->err, LORA_USAGE,
				"unknown option '--json': this command has no result to print");
	run->ui.quiet = globals->quiet;
	run->ui.verbose = globals->verbose;
	ui_set_color(&run->ui, (enum ui_color)globals->color);
	return LORA_OK;
}

/* Everything is read: runs the command. */
static enum lora_status run_command(struct run *run)
{
	struct lora_observer observer = ui_observer(&run->ui);
	struct cmd_ctx ctx = {
	    .cmd = run->cmd,
	    .ui = &run->ui,
	    .observer = &observer,
	    .threads = (unsigned)run->globals.threads,
	    .json = run->globals.json,
	    .verbose = run->globals.verbose,
	};

	return run->cmd->run(&ctx, run->args, run->scan.operands, run->scan.noperand);
}

/* Reads the options behind the command's name, and runs it. */
static enum lora_status command_line(struct run *run)
{
	enum lora_status status;

	status = opt_scan(&run->scan, &run->err);
	if (!status)
		status = apply_globals(run);
	if (status)
		return report(run);
	if (run->globals.help) {
		help_command(ui_out(&run->ui), run->cmd);
		return LORA_OK;
	}
	if (run->globals.version)
		return print_version(run);
	status = check_operands(run);
	if (!status)
		status = opt_check(&run->sets[0], &run->err);
	if (status)
		return report(run);
	return run_command(run);
}

/* Finds the command's name and makes room for its values. What the global tables have seen stays.
 */
static enum lora_status enter_command(struct run *run, const char *name)
{
	uint64_t seen[CMD_SETS] = {0, run->sets[1].seen, run->sets[2].seen};

	if (cmd_lookup(name, &run->cmd, &run->err))
		return run->err.status;
	run->ui.command = run->cmd->name;
	run->args = calloc(1, run->cmd->args_size ? run->cmd->args_size : 1);
	run->scan.operands = calloc(run->scan.argc + 1, sizeof(*run->scan.operands));
	if (!run->args || !run->scan.operands)
		return opt_fail(&run->err, LORA_SYSTEM, "out of memory: reading the command line");
	run->scan.nset = cmd_sets(run->cmd, run->args, &run->globals, run->sets);
	for (size_t i = 1; i < CMD_SETS; i++)
		run->sets[i].seen = seen[i];
	run->scan.leading = false;
	return opt_init(&run->sets[0], &run->err);
}

static enum lora_status run_line(struct run *run)
{
	enum lora_status status;

	run->scan.nset = cmd_sets(NULL, NULL, &run->globals, run->sets);
	status = opt_init(&run->sets[1], &run->err);
	if (!status)
		status = opt_scan(&run->scan, &run->err);
	if (!status)
		status = apply_globals(run);
	if (status)
		return report(run);
	if (run->globals.help && run->scan.next == run->scan.argc) {
		help_overview(ui_out(&run->ui));
		return LORA_OK;
	}
	if (run->globals.version && !run->globals.help)
		return print_version(run);
	if (run->scan.next == run->scan.argc) {
		help_usage(stderr);
		return LORA_USAGE;
	}
	if (enter_command(run, run->scan.argv[run->scan.next++]))
		return report(run);
	return command_line(run);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LEAKS_ARE_COUNTED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define LEAKS_ARE_COUNTED 1
#endif

/* The end of the process. Everything is written and freed; what would still run belongs to
 * libraries, and OpenBLAS's part of it allocates: where memory is limited it tries for ever, after
 * results that stand. */
static int leave(int status)
{
#if !defined(LEAKS_ARE_COUNTED)
	_exit(status);
#endif
	return status;
}

/* The kernels keep panels of a matrix on the stack, and each thread's is as large as the limit. */
#define STACK_LEAST ((rlim_t)128 << 10)

static enum lora_status check_stack(struct ui *ui)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_STACK, &limit) || limit.rlim_cur >= STACK_LEAST)
		return LORA_OK;
	return ui_failf(ui, LORA_SYSTEM, "the stack is limited to %llu KiB: allow 128 (ulimit -s)",
			(unsigned long long)limit.rlim_cur >> 10);
}

int main(int argc, char **argv)
{
	struct run run = {.err = LORA_ERROR_INIT};
	enum lora_status status;

	/* The library computes on threads of its own. No other thread runs yet that could read it.
	 */
	(void)setenv("OPENBLAS_NUM_THREADS", "1", 0);
	occupy_standard_streams();
	ui_signals_start();
	ui_init(&run.ui, stdout, stderr);
	run.scan = (struct opt_scan){
	    .sets = run.sets,
	    .argv = argv,
	    .argc = argc > 0 ? (size_t)argc : 0,
	    .next = argc > 0 ? 1 : 0,
	    .leading = true,
	};
	status = check_stack(&run.ui);
	if (!status)
		status = run_line(&run);
	if (run.args)
		opt_fini(&run.sets[0]);
	free(run.args);
	free(run.scan.operands);
	status = ui_finish(&run.ui, status);
	ui_fini(&run.ui);
	return leave((int)status);
}
