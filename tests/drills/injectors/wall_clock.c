/* Another wall clock for one process, by LD_PRELOAD: WALL_CLOCK_OFFSET seconds beside the machine's. The monotonic clock stays true.
 *
 * libfaketime does the same, but leaves librdkafka's waits alone: their deadlines, taken from the shifted clock, then lie days ahead.
 * A deadline counts in seconds since 1970 or since the machine started; only the former has ten digits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static time_t offset(void)
{
    const char *text = getenv("WALL_CLOCK_OFFSET");
    return text ? (time_t)atoll(text) : 0;
}

static struct timespec unshifted(const struct timespec *deadline)
{
    struct timespec real = *deadline;
    if (real.tv_sec > 1000000000)
        real.tv_sec -= offset();
    return real;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds)
        *seconds = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec real = unshifted(until);
    return REAL(pthread_cond_timedwait)(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until)
{
    struct timespec real = unshifted(until);
    return REAL(cnd_timedwait)(condition, mutex, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until)
{
    struct timespec real = unshifted(until);
    return REAL(sem_timedwait)(semaphore, &real);
}
