// Another library that handles SIGBUS: loaded before emmap (LD_PRELOAD; its constructor installs the
// handler if EMMAP_PROBE is "before") or after it (as a NIF). It has its own lost page,
// which its handler fixes and counts.
#define _GNU_SOURCE
#include <erl_nif.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char *volatile page;
static volatile sig_atomic_t mended;
static struct sigaction previous;
static int passes_on;

static void handle(int signal, siginfo_t *info, void *context)
{
    char *at = info->si_addr;
    if (page && at >= page && at < page + 4096) {
        mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        mended++;
    } else if (passes_on && previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, context);
    } else {
        signal = SIGBUS;
        struct sigaction die;
        memset(&die, 0, sizeof die);
        die.sa_handler = SIG_DFL;
        sigaction(signal, &die, NULL);
    }
}

static void take(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGBUS, &action, &previous);
}

__attribute__((constructor)) static void load(void)
{
    const char *when = getenv("EMMAP_PROBE");
    if (when && strcmp(when, "before") == 0)
        take();
}

// take(PassesOn)
static ERL_NIF_TERM take_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    enif_get_int(env, argv[0], &passes_on);
    take();
    return enif_make_atom(env, "ok");
}

// Accesses its own lost page; returns how many its handler has fixed.
static ERL_NIF_TERM fault_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    char name[] = "/tmp/emmap_probe_XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    volatile char byte = *(volatile char *)page;
    (void)byte;
    munmap(page, 4096);
    page = NULL;
    close(fd);
    return enif_make_int(env, mended);
}

// Accesses a lost page that no handler fixes.
static ERL_NIF_TERM foreign_nif(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    char name[] = "/tmp/emmap_probe_XXXXXX";
    int fd = mkstemp(name);
    unlink(name);
    char *foreign = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    return enif_make_int(env, *(volatile char *)foreign);
}

static ErlNifFunc functions[] = {
    {"take", 1, take_nif, 0}, {"fault", 0, fault_nif, 0}, {"foreign", 0, foreign_nif, 0}};

ERL_NIF_INIT(Elixir.SigbusProbe, functions, NULL, NULL, NULL, NULL)
