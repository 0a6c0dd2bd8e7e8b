/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cost of a mark is two exchanges on a cache line of the thread's own. Slots are taken from the
 * file in blocks, each with one lock; the threads of the process share a link's blocks without
 * talking to the kernel. A block whose holder died is simply lockable again; whoever takes it over,
 * or the owner when it waits, clears what the dead one left.
 *
 * The owner's wait is a futex wait on the slot. The death of the initiator wakes no futex, so the
 * wait is cut into DEATH_CHECK_MS and the lock looked at in between.
 */
#include "core/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/mark_table.h"
#include "util/cleanup.h"
#include "util/err.h"
#include "util/fd.h"

#define MARK_BLOCK     8u
#define DEATH_CHECK_MS 5

static int map_table(int fd, struct mark_table **ret)
{
	void *map =
	    mmap(NULL, MARK_TABLE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	madvise(map, MARK_TABLE_SIZE, MADV_DONTFORK);
	*ret = map;
	return 0;
}

/* ---- the owner's side ---- */

struct marks {
	struct mark_table *table;
	int fd;
};

static int32_t marks_init(struct marks *m)
{
	m->fd = fd_memfd("smem-marks", 0);
	if (m->fd < 0)
		return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "memfd_create");
	if (ftruncate(m->fd, (off_t)MARK_TABLE_SIZE) < 0 ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return smem_errno(SMEM_IO, errno, "file of marks");
	if (map_table(m->fd, &m->table) < 0)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "mapping of the marks");
	m->table->slots = MARK_SLOTS_MAX;
	m->table->version = MARK_TABLE_VERSION;
	return 0;
}

int32_t marks_create(struct marks **ret)
{
	struct marks *m = calloc(1, sizeof(*m));

	if (!m)
		return smem_err(SMEM_MALLOC_FAILED, "file of marks");
	m->fd = -1;
	int32_t e = marks_init(m);
	if (e) {
		marks_destroy(m);
		return e;
	}
	*ret = m;
	return 0;
}

void marks_destroy(struct marks *m)
{
	if (!m)
		return;
	if (m->table)
		munmap(m->table, MARK_TABLE_SIZE);
	fd_close(&m->fd);
	free(m);
}

int marks_fd(const struct marks *m)
{
	return m->fd;
}

/* Does anybody hold slot i? Locks of this descriptor's own file description do not count; it takes
 * none. */
static bool slot_held(const struct marks *m, uint32_t i)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = 1};

	if (fcntl(m->fd, F_OFD_GETLK, &lock) < 0)
		return true;
	return lock.l_type != F_UNLCK;
}

/* An odd seq, for which somebody may be at work in [begin, end); 0: nobody is. */
static uint32_t in_flight(struct mark_slot *s, uint64_t begin, uint64_t end)
{
	uint32_t seq = atomic_load(&s->seq);

	if (!(seq & 1))
		return 0;
	bool apart = atomic_load(&s->begin) >= end || atomic_load(&s->end) <= begin;
	/* the range is the one of seq only if seq is still there */
	return apart && atomic_load(&s->seq) == seq ? 0 : seq;
}

static int32_t await_slot(struct marks *m, uint32_t i, uint64_t begin, uint64_t end,
			  struct deadline deadline)
{
	struct mark_slot *s = mark_table_slot(m->table, i);
	uint32_t seq = in_flight(s, begin, end);

	while (seq && atomic_load(&s->seq) == seq) {
		if (!slot_held(m, i)) {
			atomic_compare_exchange_strong(&s->seq, &seq, seq + 1);
			return 0;
		}
		if (deadline_passed(deadline))
			return smem_err(
			    SMEM_RESOURCE_IN_USE,
			    "a transfer of process %u at [0x%llx, 0x%llx) is still in flight after "
			    "%llu ms",
			    atomic_load(&s->pid), (unsigned long long)atomic_load(&s->begin),
			    (unsigned long long)atomic_load(&s->end),
			    (unsigned long long)deadline_elapsed_ms(deadline));
		struct deadline slice = deadline_in_ms(DEATH_CHECK_MS);
		struct timespec until =
		    deadline_timespec(slice.end < deadline.end ? slice : deadline);
		syscall(SYS_futex, &s->seq, FUTEX_WAIT_BITSET, seq, &until, NULL,
			FUTEX_BITSET_MATCH_ANY);
	}
	return 0;
}

int32_t marks_await(struct marks *m, uint64_t begin, uint64_t end, struct deadline deadline)
{
	int32_t e = 0;
	uint32_t high = atomic_load(&m->table->high);

	if (high > MARK_SLOTS_MAX)
		high = MARK_SLOTS_MAX;
	atomic_fetch_add(&m->table->waiting, 1);
	for (uint32_t i = 0; i < high && !e; i++)
		e = await_slot(m, i, begin, end, deadline);
	atomic_fetch_sub(&m->table->waiting, 1);
	return e;
}

/* ---- the initiator's side ---- */

struct mark_ref {
	_Alignas(64) _Atomic uint32_t busy;
	uint32_t seq; /* the slot's, which nobody else changes while we live */
	struct mark_slot *slot;
	struct mark_table *table;
};

struct marker_block {
	struct mark_ref ref[MARK_BLOCK];
	struct marker_block *next;
};

struct marker {
	struct mark_table *table;
	int fd; /* a file description of its own: it carries the locks */
	pthread_mutex_t lock;
	_Atomic(struct marker_block *) blocks; /* only ever grows */
};

static _Atomic uint32_t next_thread;
static __thread uint32_t my_thread __attribute__((tls_model("initial-exec")));

static int32_t marker_init(struct marker *m, int fd)
{
	char path[32];
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (fstat(fd, &st) < 0 || seals < 0 || !(seals & F_SEAL_SHRINK) ||
	    (uint64_t)st.st_size != MARK_TABLE_SIZE)
		return smem_err(SMEM_IO, "file of marks: not a sealed memfd of the right size");
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	m->fd = fd_own(open(path, O_RDWR | O_CLOEXEC));
	if (m->fd < 0)
		return smem_errno(SMEM_IO, errno, "file of marks: opening %s", path);
	if (map_table(m->fd, &m->table) < 0)
		return smem_errno(SMEM_MALLOC_FAILED, errno, "mapping of a peer's marks");
	if (m->table->version != MARK_TABLE_VERSION || m->table->slots != MARK_SLOTS_MAX)
		return smem_err(SMEM_NOT_SUPPORTED, "file of marks of version %u, this is %u",
				m->table->version, MARK_TABLE_VERSION);
	return 0;
}

int32_t marker_open(int fd, struct marker **ret)
{
	struct marker *m = calloc(1, sizeof(*m));

	if (!m)
		return smem_err(SMEM_MALLOC_FAILED, "marks of a peer");
	m->fd = -1;
	pthread_mutex_init(&m->lock, NULL);
	int32_t e = marker_init(m, fd);
	if (e) {
		marker_close(m);
		return e;
	}
	*ret = m;
	return 0;
}

void marker_close(struct marker *m)
{
	if (!m)
		return;
	for (struct marker_block *b = atomic_load(&m->blocks), *next; b; b = next) {
		next = b->next;
		free(b);
	}
	if (m->table)
		munmap(m->table, MARK_TABLE_SIZE);
	fd_close(&m->fd);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* Lock a block of slots that nobody else holds. Ours are in the way of nobody: they are skipped. */
static int32_t lock_block(struct marker *m, uint32_t *ret)
{
	const struct marker_block *own = atomic_load(&m->blocks);
	uint32_t first =
	    own ? (uint32_t)(own->ref[0].slot - mark_table_slot(m->table, 0)) + MARK_BLOCK : 0;

	for (uint32_t i = first; i + MARK_BLOCK <= MARK_SLOTS_MAX; i += MARK_BLOCK) {
		struct flock lock = {
		    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = i, .l_len = MARK_BLOCK};
		if (fcntl(m->fd, F_OFD_SETLK, &lock) == 0) {
			*ret = i;
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES)
			return smem_errno(SMEM_NEW_OBJECT_FAILED, errno, "lock of a mark");
	}
	return smem_err(SMEM_NEW_OBJECT_FAILED, "all %u marks of the peer are taken",
			MARK_SLOTS_MAX);
}

static void raise_high(struct mark_table *t, uint32_t to)
{
	uint32_t high = atomic_load(&t->high);

	while (high < to && !atomic_compare_exchange_weak(&t->high, &high, to))
		;
}

/* Another block, its first slot taken by the caller. */
static int32_t grow(struct marker *m, struct mark_ref **ret)
{
	uint32_t first = 0;
	struct marker_block *b = aligned_alloc(64, sizeof(*b));

	if (!b)
		return smem_err(SMEM_MALLOC_FAILED, "marks of a peer");
	int32_t e = lock_block(m, &first);
	if (e) {
		free(b);
		return e;
	}
	/* before the first mark in it, so that the owner looks at it */
	raise_high(m->table, first + MARK_BLOCK);
	for (uint32_t i = 0; i < MARK_BLOCK; i++) {
		struct mark_slot *s = mark_table_slot(m->table, first + i);
		uint32_t seq = atomic_load(&s->seq);
		if (seq & 1) /* a dead one's */
			atomic_store(&s->seq, ++seq);
		atomic_store(&s->pid, (uint32_t)getpid());
		b->ref[i] =
		    (struct mark_ref){.busy = i == 0, .seq = seq, .slot = s, .table = m->table};
	}
	b->next = atomic_load(&m->blocks);
	atomic_store(&m->blocks, b);
	*ret = &b->ref[0];
	return 0;
}

static struct mark_ref *take_idle(struct marker *m)
{
	if (my_thread == 0)
		my_thread = atomic_fetch_add(&next_thread, 1) + 1;
	for (struct marker_block *b = atomic_load(&m->blocks); b; b = b->next) {
		for (uint32_t i = 0; i < MARK_BLOCK; i++) {
			struct mark_ref *ref = &b->ref[(my_thread + i) % MARK_BLOCK];
			uint32_t idle = 0;
			if (atomic_load_explicit(&ref->busy, memory_order_relaxed) == 0 &&
			    atomic_compare_exchange_strong(&ref->busy, &idle, 1))
				return ref;
		}
	}
	return NULL;
}

int32_t marker_take(struct marker *m, struct mark_ref **ret)
{
	*ret = take_idle(m);
	if (*ret)
		return 0;
	LOCKED(&m->lock);
	*ret = take_idle(m);
	return *ret ? 0 : grow(m, ret);
}

void marker_give(struct mark_ref *ref)
{
	atomic_store_explicit(&ref->busy, 0, memory_order_release);
}

void mark_set(struct mark_ref *ref, uint64_t begin, uint64_t end)
{
	struct mark_slot *s = ref->slot;

	atomic_store_explicit(&s->begin, begin, memory_order_release);
	atomic_store_explicit(&s->end, end, memory_order_release);
	atomic_store(&s->seq, ++ref->seq);
}

void mark_clear(struct mark_ref *ref)
{
	atomic_store(&ref->slot->seq, ++ref->seq);
	if (atomic_load(&ref->table->waiting))
		syscall(SYS_futex, &ref->slot->seq, FUTEX_WAKE, 1, NULL, NULL, 0);
}
