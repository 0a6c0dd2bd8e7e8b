/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pool memory as an object. A region holds its pool and is what the memoryview (and whatever is
 * built on it: a NumPy array, a torch tensor) keeps alive; while it lives, the pool can neither be
 * collected nor destroyed. The addresses are the pool's own, so a view's address is a GVA.
 */
#include "smem_py.h"

#include <fcntl.h>
#include <unistd.h>

struct region {
	PyObject_HEAD
	PyObject *owner; /* struct object */
	void *address;
	uint64_t size;
	uint32_t generation;
	bool peer;
};

static int region_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct region *r = (struct region *)self;

	if (r->generation != process.generation) {
		PyErr_SetString(PyExc_BufferError, "the memory was inherited by fork");
		view->obj = NULL;
		return -1;
	}
	return PyBuffer_FillInfo(view, self, r->address, (Py_ssize_t)r->size, 0, flags);
}

static void region_dealloc(PyObject *self)
{
	struct region *r = (struct region *)self;
	struct object *o = (struct object *)r->owner;

	PyObject_GC_UnTrack(self);
	if (o && r->generation == process.generation) {
		o->views--;
		o->peer_views -= r->peer;
		process.views[o->service]--;
	}
	Py_CLEAR(r->owner);
	PyTypeObject *type = Py_TYPE(self);
	PyObject_GC_Del(self);
	Py_DECREF(type);
}

static int region_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(Py_TYPE(self));
	Py_VISIT(((struct region *)self)->owner);
	return 0;
}

/* Would a load at either end fault? The kernel answers without faulting us. Nothing is written: a
 * peer may be storing there. */
static bool accessible(const char *address, uint64_t size)
{
	int fd[2];

	if (pipe2(fd, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	bool ok = write(fd[1], address, 1) == 1 && write(fd[1], address + size - 1, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return ok;
}

static struct region *region_new(const struct region_request *q)
{
	struct object *o = q->owner;
	struct region *r = PyObject_GC_New(struct region, (PyTypeObject *)o->state->region);

	if (!r)
		return NULL;
	r->owner = (PyObject *)o;
	Py_INCREF(r->owner);
	r->address = (void *)(uintptr_t)q->address;
	r->size = q->size;
	r->generation = process.generation;
	r->peer = q->peer;
	o->views++;
	o->peer_views += q->peer;
	process.views[o->service]++;
	PyObject_GC_Track((PyObject *)r);
	return r;
}

PyObject *region_view(const struct region_request *q,
		      int32_t (*check)(void *handle, const struct region_request *request))
{
	struct object *o = q->owner;
	struct region *r = region_new(q);
	PyObject *view = NULL;
	int32_t code = 0;
	bool reachable = false;

	if (!r)
		return NULL;
	void *handle = o->handle;
	Py_BEGIN_ALLOW_THREADS
	code = check ? check(handle, q) : 0;
	if (code == 0)
		reachable = accessible(r->address, r->size);
	Py_END_ALLOW_THREADS
	if (code != 0)
		error_raise(o->state, code, q->operation);
	else if (!reachable)
		error_raise_text(o->state, SMEM_NOT_SUPPORTED, q->operation,
				 "the slot is not load/store-able in this process");
	else
		view = PyMemoryView_FromObject((PyObject *)r);
	Py_DECREF(r);
	return view;
}

static const char region_doc[] = "Memory of a pool: what memoryview.obj of a view is.";

static PyType_Slot region_slots[] = {
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_traverse, region_traverse},
    {Py_bf_getbuffer, region_getbuffer},
    {Py_tp_doc, (void *)region_doc},
    {0},
};

PyType_Spec region_spec = {.name = "mf_smem._smem._Region",
			   .basicsize = sizeof(struct region),
			   .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
				    Py_TPFLAGS_DISALLOW_INSTANTIATION,
			   .slots = region_slots};
