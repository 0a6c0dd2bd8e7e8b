/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callbacks from the C library: logger, decrypt handler, exit. They arrive on any thread, with or
 * without a Python thread state. Each passes a gate first, which closes in atexit, before the
 * interpreter starts to fall apart: what comes later is dropped without touching Python, and the
 * closing waits (bounded) for those that are inside. A callable is kept in one place, read and
 * replaced with the GIL held, and referenced while it runs.
 */
#include "smem_py.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CLOSE_WAIT_S 5
#define EXIT_SLOTS   64 /* SHM ids are 0..63, one live object each */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	unsigned inside;
	bool closed;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = PTHREAD_COND_INITIALIZER};

static PyObject *logger;
static PyObject *decrypt;
static atomic_bool logger_set;
static struct object *exit_slots[EXIT_SLOTS];

static bool gate_enter(PyGILState_STATE *gil)
{
	pthread_mutex_lock(&gate.lock);
	bool open = !gate.closed && Py_IsInitialized();
	gate.inside += open;
	pthread_mutex_unlock(&gate.lock);
	if (open)
		*gil = PyGILState_Ensure();
	return open;
}

static void gate_leave(PyGILState_STATE gil)
{
	PyGILState_Release(gil);
	pthread_mutex_lock(&gate.lock);
	if (gate.inside && --gate.inside == 0)
		pthread_cond_broadcast(&gate.idle);
	pthread_mutex_unlock(&gate.lock);
}

static void gate_close(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += CLOSE_WAIT_S;
	pthread_mutex_lock(&gate.lock);
	gate.closed = true;
	while (gate.inside && pthread_cond_timedwait(&gate.idle, &gate.lock, &end) == 0)
		;
	pthread_mutex_unlock(&gate.lock);
}

void callback_reset_after_fork(void)
{
	pthread_mutex_init(&gate.lock, NULL);
	pthread_cond_init(&gate.idle, NULL);
	gate.inside = 0;
	memset(exit_slots, 0, sizeof(exit_slots));
}

/* Calls f(args), reports an exception, keeps the one that may be pending in this thread. */
static PyObject *call(PyObject *f, PyObject *args)
{
	PyObject *type, *value, *trace, *result = NULL;

	PyErr_Fetch(&type, &value, &trace);
	Py_INCREF(f);
	if (args)
		result = PyObject_CallObject(f, args);
	if (!result)
		PyErr_WriteUnraisable(f);
	Py_XDECREF(args);
	Py_DECREF(f);
	PyErr_Restore(type, value, trace);
	return result;
}

/* The library's own sink, for the time after a logger was taken back: C has no call for that. */
static void default_sink(int level, const char *text)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	struct timespec now;
	struct tm tm;
	char line[4096];

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	int n =
	    snprintf(line, sizeof(line), "%04d-%02d-%02d %02d:%02d:%02d.%06ld %s %ld %s\n",
		     tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		     now.tv_nsec / 1000, names[level & 3], syscall(SYS_gettid), text);
	if (n >= (int)sizeof(line))
		n = sizeof(line) - 1;
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return; /* nowhere left to say so */
}

static void on_log(int level, const char *msg)
{
	PyGILState_STATE gil;

	if (!atomic_load(&logger_set)) {
		default_sink(level, msg);
		return;
	}
	if (!gate_enter(&gil))
		return;
	PyObject *f = logger;
	if (f) {
		PyObject *text = PyUnicode_DecodeUTF8(msg, (Py_ssize_t)strlen(msg), "replace");
		Py_XDECREF(call(f, text ? Py_BuildValue("(iN)", level, text) : NULL));
	}
	gate_leave(gil);
	if (!f)
		default_sink(level, msg);
}

static void replace(PyObject **place, PyObject *callable)
{
	PyObject *old = *place;

	Py_XINCREF(callable);
	*place = callable;
	Py_XDECREF(old);
}

int32_t callback_set_logger(PyObject *callable)
{
	if (callable == Py_None)
		callable = NULL;
	atomic_store(&logger_set, callable != NULL);
	replace(&logger, callable);
	return smem_set_extern_logger(callable ? on_log : NULL);
}

/* The plain text of result into the library's buffer; false when it is none or does not fit. */
static bool take_plain(PyObject *result, char *plain, int *length)
{
	Py_ssize_t n;

	if (!PyUnicode_Check(result)) {
		PyErr_SetString(PyExc_TypeError, "the decrypt handler must return str");
		return false;
	}
	const char *s = PyUnicode_AsUTF8AndSize(result, &n);
	if (!s)
		return false;
	if (n == 0 || n > *length) {
		PyErr_Format(PyExc_ValueError,
			     "the decrypt handler returned %zd bytes, the limit is 1..%d", n,
			     *length);
		return false;
	}
	memcpy(plain, s, (size_t)n);
	*length = (int)n;
	return true;
}

static int on_decrypt(const char *cipher, int *cipher_length, char *plain, int *plain_length)
{
	PyGILState_STATE gil;
	bool ok = false;

	if (!gate_enter(&gil))
		return -1;
	PyObject *f = decrypt;
	if (f) {
		Py_INCREF(f);
		PyObject *text = PyUnicode_DecodeUTF8(cipher, *cipher_length, "surrogateescape");
		PyObject *result = call(f, text ? Py_BuildValue("(N)", text) : NULL);
		ok = result && take_plain(result, plain, plain_length);
		if (result && !ok)
			PyErr_WriteUnraisable(f);
		Py_XDECREF(result);
		Py_DECREF(f);
	}
	gate_leave(gil);
	return ok ? 0 : -1;
}

int32_t callback_set_decrypt(PyObject *callable)
{
	if (callable == Py_None)
		return smem_register_decrypt_handler(NULL);
	replace(&decrypt, callable);
	return smem_register_decrypt_handler(on_decrypt);
}

static void exit_run(unsigned id, int status)
{
	PyGILState_STATE gil;

	if (!gate_enter(&gil))
		return;
	struct object *o = exit_slots[id];
	if (o && o->exit_callback) {
		PyObject *f = o->exit_callback;
		o->exit_callback = NULL;
		exit_slots[id] = NULL;
		Py_XDECREF(call(f, Py_BuildValue("(i)", status)));
		Py_DECREF(f);
	}
	gate_leave(gil);
}

/* The C callback knows the status only, so each SHM id has a function of its own: exit_<octal id>
 */
#define ROW(M, a) M(a, 0) M(a, 1) M(a, 2) M(a, 3) M(a, 4) M(a, 5) M(a, 6) M(a, 7)
#define EACH(M)	  ROW(M, 0) ROW(M, 1) ROW(M, 2) ROW(M, 3) ROW(M, 4) ROW(M, 5) ROW(M, 6) ROW(M, 7)
#define EXIT_FUNCTION(a, b)                                                                        \
	static void exit_##a##b(int status)                                                        \
	{                                                                                          \
		exit_run((a)*8 + (b), status);                                                     \
	}
#define EXIT_NAME(a, b) exit_##a##b,
EACH(EXIT_FUNCTION)
static void (*const exit_functions[EXIT_SLOTS])(int) = {EACH(EXIT_NAME)};

/* The callback may run before the C call returns, so it is in place first. */
int32_t callback_register_exit(struct object *o, void *handle, PyObject *callable)
{
	bool first = object_live(o) && !o->exit_callback && !o->exit_registering;
	void (*function)(int) = exit_functions[o->id % EXIT_SLOTS];
	int32_t code;

	if (first) {
		Py_INCREF(callable);
		o->exit_callback = callable;
		o->exit_registering = true;
		exit_slots[o->id] = o;
	}
	Py_BEGIN_ALLOW_THREADS
	code = smem_shm_register_exit(handle, function);
	Py_END_ALLOW_THREADS
	if (first)
		o->exit_registering = false;
	if (first && code != 0)
		callback_forget_object(o);
	return code;
}

void callback_forget_object(struct object *o)
{
	if (o->service != SERVICE_SHM)
		return;
	if (exit_slots[o->id % EXIT_SLOTS] == o)
		exit_slots[o->id % EXIT_SLOTS] = NULL;
	Py_CLEAR(o->exit_callback);
}

bool callback_main_interpreter(const char *func)
{
	if (PyInterpreterState_GetID(PyInterpreterState_Get()) == 0)
		return true;
	PyErr_Format(PyExc_RuntimeError, "%s: callbacks need the main interpreter", func);
	return false;
}

static PyObject *close_gate(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	Py_BEGIN_ALLOW_THREADS
	gate_close();
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyMethodDef close_def = {"_close_callbacks", close_gate, METH_NOARGS,
				"Drop callbacks from now on; run at exit."};

/* Callbacks belong to the main interpreter, whose end is what they have to fear. */
int callback_setup(PyObject *module)
{
	if (PyInterpreterState_GetID(PyInterpreterState_Get()) != 0)
		return 0;
	PyObject *name = PyUnicode_FromString("mf_smem._smem");
	PyObject *f = name ? PyCFunction_NewEx(&close_def, module, name) : NULL;
	PyObject *atexit = f ? PyImport_ImportModule("atexit") : NULL;
	PyObject *done = atexit ? PyObject_CallMethod(atexit, "register", "O", f) : NULL;
	int r = done ? 0 : -1;

	gate.closed = false;
	Py_XDECREF(done);
	Py_XDECREF(atexit);
	Py_XDECREF(f);
	Py_XDECREF(name);
	return r;
}
