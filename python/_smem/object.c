/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects over handles. The handle leaves the object under the GIL, before the C destroy, so
 * destroy is idempotent and every later call goes to C with a handle that is nobody's. Three things
 * make an object inert: destroy, an uninit of its service (a new epoch), and fork (a new
 * generation). Memory handed out as views bars destruction and uninit: they raise BufferError, as
 * mmap.close() does, since no later access could be stopped.
 */
#include "smem_py.h"

#include <pthread.h>

struct process process;

static void after_fork_in_child(void)
{
	process.generation++;
	for (int s = 0; s < SERVICE_COUNT; s++)
		process.views[s] = 0;
	callback_reset_after_fork();
	engine_after_fork();
}

int process_setup(void)
{
	static bool done;

	if (done)
		return 0;
	if (pthread_atfork(NULL, NULL, after_fork_in_child) != 0) {
		PyErr_SetString(PyExc_ImportError, "mf_smem: pthread_atfork failed");
		return -1;
	}
	done = true;
	return 0;
}

/* The module state of the first base type that is ours. */
struct state *object_state(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);

	while (type) {
		PyObject *module = PyType_GetModule(type);
		struct state *state = module ? PyModule_GetState(module) : NULL;
		if (state && state->smem_error)
			return state;
		PyErr_Clear();
		type = PyType_GetSlot(type, Py_tp_base);
	}
	PyErr_SetString(PyExc_SystemError, "mf_smem: type without module");
	return NULL;
}

bool object_live(const struct object *o)
{
	return o->handle && o->generation == process.generation &&
	       o->epoch == process.epoch[o->service];
}

bool object_handle(struct object *o, const char *operation, void **ret)
{
	if (o->handle && o->generation != process.generation) {
		error_raise_text(o->state ? o->state : object_state((PyObject *)o),
				 SMEM_NOT_INITIALIZED, operation,
				 "the object was inherited by fork and is inert in this process");
		return false;
	}
	if (!o->state && !(o->state = object_state((PyObject *)o)))
		return false;
	*ret = object_live(o) ? o->handle : BAD_HANDLE;
	return true;
}

void object_begin(struct object *o, void *handle)
{
	o->handle = handle;
	o->generation = process.generation;
	o->epoch = process.epoch[o->service];
}

void *object_take(struct object *o)
{
	if (!object_live(o)) {
		o->handle = NULL;
		return NULL;
	}
	if (o->views) {
		PyErr_Format(PyExc_BufferError,
			     "destroy: %u view%s of the object's memory alive; release %s first",
			     o->views, o->views == 1 ? " is" : "s are",
			     o->views == 1 ? "it" : "them");
		return NULL;
	}
	void *handle = o->handle;
	o->handle = NULL;
	return handle;
}

bool process_no_views(const char *func, unsigned services)
{
	uint32_t views = 0;

	for (int s = 0; s < SERVICE_COUNT; s++)
		views += services & BIT(s) ? process.views[s] : 0;
	if (!views)
		return true;
	PyErr_Format(PyExc_BufferError, "%s: %u view%s of pool memory alive; release %s first",
		     func, views, views == 1 ? " is" : "s are", views == 1 ? "it" : "them");
	return false;
}

void process_next_epoch(unsigned services)
{
	for (int s = 0; s < SERVICE_COUNT; s++)
		process.epoch[s] += services & BIT(s) ? 1 : 0;
}

void object_free(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	release(self);
	Py_DECREF(type);
}
