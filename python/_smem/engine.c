/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mf_adapter.TransferEngine over smem_trans.h. Methods return codes; what is refused here sets the
 * last error too. An engine is idle, creating or live; destroy during creation lets it finish and
 * undoes it. A fork makes it idle in the child.
 */
#include "smem_py.h"

#include <string.h>

#include "engine_doc.h"
#include "port.h"

#pragma weak smem_trans_read
#pragma weak smem_trans_batch_read

PARAMS(initialize_params, "initialize", 4, "store_url", "session_id", "role", "device_id");
PARAMS(register_params, "register_memory", 2, "buffer_addr", "capacity");
PARAMS(unregister_params, "unregister_memory", 1, "buffer_addr");
PARAMS(batch_register_params, "batch_register_memory", 2, "buffer_addrs", "capacities");
PARAMS(write_params, "transfer_sync_write", 4, "dest_session", "buffer", "peer_buffer", "length",
       "flags");
PARAMS(read_params, "transfer_sync_read", 4, "dest_session", "buffer", "peer_buffer", "length",
       "flags");
PARAMS(batch_write_params, "batch_transfer_sync_write", 4, "dest_session", "buffers",
       "peer_buffers", "lengths", "flags");
PARAMS(batch_read_params, "batch_transfer_sync_read", 4, "dest_session", "buffers", "peer_buffers",
       "lengths", "flags");
static const struct params no_params = {.func = "TransferEngine"};

struct engine {
	PyObject_HEAD
	PyObject *weak;
	void *handle;
	uint64_t epoch;
	uint32_t generation;
	uint32_t creating; /* generation + 1 while initialize() runs */
	bool cancelled;	   /* destroyed meanwhile */
	struct port port;
};

static bool live(const struct engine *e)
{
	return e->handle && e->generation == process.generation &&
	       e->epoch == process.epoch[SERVICE_TRANS];
}

static bool owner_live(const void *owner)
{
	return live(owner);
}

static bool creating(const struct engine *e)
{
	return e->creating == process.generation + 1;
}

static PyObject *failed(int32_t code, const char *method, const char *detail)
{
	return PyLong_FromLong(error_record(code, method, "%s", detail));
}

static PyObject *not_live(const char *method)
{
	return failed(SMEM_NOT_INITIALIZED, method, "the engine is not initialised");
}

void engine_after_fork(void)
{
	port_list_drop(NULL);
}

static void drop_port(struct engine *e)
{
	if (e->port.number)
		port_list_remove(&e->port);
	port_release(&e->port);
}

static void *take_handle(struct engine *e)
{
	void *handle = live(e) ? e->handle : NULL;

	e->handle = NULL;
	return handle;
}

static int engine_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	PyObject *none[1];

	(void)self;
	return args_bind_dict(&no_params, args, kwargs, none) ? 0 : -1;
}

static void engine_dealloc(PyObject *self)
{
	struct engine *e = (struct engine *)self;
	PyObject *type, *value, *trace;

	if (e->weak)
		PyObject_ClearWeakRefs(self);
	PyErr_Fetch(&type, &value, &trace);
	void *handle = take_handle(e);
	drop_port(e);
	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_trans_destroy(handle, 0);
		Py_END_ALLOW_THREADS
	}
	PyErr_Restore(type, value, trace);
	object_free(self);
}

/* Creates the session without the GIL and settles with what happened meanwhile. */
static int32_t create(struct engine *e, const char *url, const char *session,
		      const smem_trans_config_t *config)
{
	uint64_t epoch = process.epoch[SERVICE_TRANS];
	void *handle, *unwanted = NULL;
	int32_t r = 0;

	e->creating = process.generation + 1;
	e->cancelled = false;
	Py_BEGIN_ALLOW_THREADS
	handle = smem_trans_create(url, session, config);
	if (!handle)
		r = smem_get_last_err_code();
	Py_END_ALLOW_THREADS
	e->creating = 0;
	if (!handle) {
		error_seen_c();
		return r;
	}
	if (e->cancelled || epoch != process.epoch[SERVICE_TRANS]) {
		unwanted = handle;
		Py_BEGIN_ALLOW_THREADS
		smem_trans_destroy(unwanted, 0);
		Py_END_ALLOW_THREADS
		return error_record(SMEM_OBJECT_NOT_EXISTS, "TransferEngine.initialize",
				    "the engine was destroyed during the call");
	}
	e->handle = handle;
	e->epoch = epoch;
	e->generation = process.generation;
	return 0;
}

static int32_t parse_role(const char *role, smem_trans_role_t *ret)
{
	if (strcmp(role, "Prefill") == 0)
		*ret = SMEM_TRANS_SENDER;
	else if (strcmp(role, "Decode") == 0)
		*ret = SMEM_TRANS_RECEIVER;
	else
		return error_record(SMEM_INVALID_PARAM, "TransferEngine.initialize",
				    "role '%.64s', must be 'Prefill' or 'Decode'", role);
	return 0;
}

static PyObject *engine_initialize(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	struct engine *e = (struct engine *)self;
	struct text url = {0}, session = {0}, role = {0};
	smem_trans_config_t config;
	PyObject *a[4];
	int64_t device = 0;
	int32_t r = -1;

	if (!args_bind(&initialize_params, args, nargs, kwnames, a) ||
	    !arg_signed(a[3], "device_id", -1, UINT32_MAX, &device))
		return NULL;
	bool ok = arg_text(a[0], "store_url", &url) && arg_text(a[1], "session_id", &session) &&
		  arg_text(a[2], "role", &role);
	if (ok) {
		smem_trans_config_init(&config);
		config.deviceId = (uint32_t)device;
		r = parse_role(role.s, &config.role);
		if (r == 0 && (live(e) || creating(e)))
			r = error_record(SMEM_REPEAT_CALL, "TransferEngine.initialize",
					 "the engine is initialised already");
		if (r == 0)
			r = create(e, url.s, session.s, &config);
	}
	text_free(&url);
	text_free(&session);
	text_free(&role);
	return ok ? PyLong_FromLong(r) : NULL;
}

static PyObject *engine_get_rpc_port(PyObject *self, PyObject *unused)
{
	struct engine *e = (struct engine *)self;
	struct port port;

	(void)unused;
	if (!e->port.number) {
		Py_BEGIN_ALLOW_THREADS
		port_reserve(&port);
		Py_END_ALLOW_THREADS
		if (e->port.number) { /* another thread was faster */
			port_release(&port);
		} else if (port.number) {
			e->port = port;
			e->port.owner = e;
			port_list_add(&e->port);
		}
	}
	return PyLong_FromLong(e->port.number);
}

static PyObject *engine_register(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	struct engine *e = (struct engine *)self;
	PyObject *a[2];
	uint64_t address = 0, capacity = 0;
	int32_t r;

	if (!args_bind(&register_params, args, nargs, kwnames, a) ||
	    !arg_u64(a[0], "buffer_addr", &address) || !arg_u64(a[1], "capacity", &capacity))
		return NULL;
	if (!live(e))
		return not_live("TransferEngine.register_memory");
	void *handle = e->handle;
	Py_BEGIN_ALLOW_THREADS
	r = smem_trans_register_mem(handle, (void *)(uintptr_t)address, capacity, 0);
	Py_END_ALLOW_THREADS
	return error_code(r);
}

static PyObject *engine_unregister(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	struct engine *e = (struct engine *)self;
	PyObject *a[1];
	uint64_t address = 0;
	int32_t r;

	if (!args_bind(&unregister_params, args, nargs, kwnames, a) ||
	    !arg_u64(a[0], "buffer_addr", &address))
		return NULL;
	if (!live(e))
		return not_live("TransferEngine.unregister_memory");
	void *handle = e->handle;
	Py_BEGIN_ALLOW_THREADS
	r = smem_trans_deregister_mem(handle, (void *)(uintptr_t)address);
	Py_END_ALLOW_THREADS
	return error_code(r);
}

static int32_t batch_register(void *handle, const struct vector *addresses,
			      const struct vector *capacities)
{
	int32_t r;

	if (addresses->count != capacities->count || addresses->count > UINT32_MAX)
		return error_record(SMEM_INVALID_PARAM, "TransferEngine.batch_register_memory",
				    "%zu buffer_addrs, %zu capacities", addresses->count,
				    capacities->count);
	if (addresses->count == 0)
		return 0;
	Py_BEGIN_ALLOW_THREADS
	r = smem_trans_batch_register_mem(handle, (void **)addresses->items,
					  (size_t *)capacities->items, (uint32_t)addresses->count,
					  0);
	Py_END_ALLOW_THREADS
	if (r != 0)
		error_seen_c();
	return r;
}

static PyObject *engine_batch_register(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				       PyObject *kwnames)
{
	struct engine *e = (struct engine *)self;
	struct vector addresses = {0}, capacities = {0};
	PyObject *a[2], *result = NULL;

	if (args_bind(&batch_register_params, args, nargs, kwnames, a) &&
	    arg_vector(a[0], "buffer_addrs", &addresses) &&
	    arg_vector(a[1], "capacities", &capacities))
		result = live(e)
			     ? PyLong_FromLong(batch_register(e->handle, &addresses, &capacities))
			     : not_live("TransferEngine.batch_register_memory");
	vector_free(&addresses);
	vector_free(&capacities);
	return result;
}

/* Reads look at the flags, and may be missing in the library. 0: go on. */
static int32_t check_read(const char *method, uint32_t flags, bool offered)
{
	if (flags & ~COPY_EXTEND_FLAG)
		return error_record(SMEM_INVALID_PARAM, method, "flags %u, must be 0 or 2", flags);
	if (!offered)
		return error_record(SMEM_NOT_SUPPORTED, method, "this library has no reads");
	return 0;
}

struct single {
	struct text session;
	uint64_t buffer, peer, length;
	uint32_t flags;
};

static bool single_args(const struct params *p, PyObject *const *args, Py_ssize_t nargs,
			PyObject *kwnames, struct single *s)
{
	PyObject *a[5];

	*s = (struct single){0};
	return args_bind(p, args, nargs, kwnames, a) && arg_u64(a[1], "buffer", &s->buffer) &&
	       arg_u64(a[2], "peer_buffer", &s->peer) && arg_u64(a[3], "length", &s->length) &&
	       arg_u32(a[4], "flags", &s->flags) && arg_text(a[0], "dest_session", &s->session);
}

static PyObject *engine_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			      PyObject *kwnames)
{
	struct engine *e = (struct engine *)self;
	struct single s;
	int32_t r;

	if (!single_args(&write_params, args, nargs, kwnames, &s))
		return NULL;
	if (!live(e)) {
		text_free(&s.session);
		return not_live("TransferEngine.transfer_sync_write");
	}
	void *handle = e->handle;
	Py_BEGIN_ALLOW_THREADS
	r = smem_trans_write(handle, (void *)(uintptr_t)s.buffer, s.session.s,
			     (void *)(uintptr_t)s.peer, s.length);
	Py_END_ALLOW_THREADS
	text_free(&s.session);
	return error_code(r);
}

static PyObject *engine_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *kwnames)
{
	static const char method[] = "TransferEngine.transfer_sync_read";
	struct engine *e = (struct engine *)self;
	struct single s;

	if (!single_args(&read_params, args, nargs, kwnames, &s))
		return NULL;
	if (!live(e)) {
		text_free(&s.session);
		return not_live(method);
	}
	void *handle = e->handle;
	int32_t r = check_read(method, s.flags, smem_trans_read != NULL);
	if (r == 0) {
		Py_BEGIN_ALLOW_THREADS
		r = smem_trans_read(handle, (void *)(uintptr_t)s.buffer, s.session.s,
				    (void *)(uintptr_t)s.peer, s.length, s.flags);
		Py_END_ALLOW_THREADS
		if (r != 0)
			error_seen_c();
	}
	text_free(&s.session);
	return PyLong_FromLong(r);
}

struct batch {
	struct text session;
	struct vector buffers, peers, lengths;
	uint32_t flags;
};

static void batch_free(struct batch *b)
{
	text_free(&b->session);
	vector_free(&b->buffers);
	vector_free(&b->peers);
	vector_free(&b->lengths);
}

static bool batch_args(const struct params *p, PyObject *const *args, Py_ssize_t nargs,
		       PyObject *kwnames, struct batch *b)
{
	PyObject *a[5];

	*b = (struct batch){0};
	if (args_bind(p, args, nargs, kwnames, a) && arg_u32(a[4], "flags", &b->flags) &&
	    arg_text(a[0], "dest_session", &b->session) &&
	    arg_vector(a[1], "buffers", &b->buffers) &&
	    arg_vector(a[2], "peer_buffers", &b->peers) && arg_vector(a[3], "lengths", &b->lengths))
		return true;
	batch_free(b);
	return false;
}

static int32_t batch_check(const struct batch *b, const char *method)
{
	size_t n = b->buffers.count;

	if (n == b->peers.count && n == b->lengths.count && n <= UINT32_MAX)
		return 0;
	return error_record(SMEM_INVALID_PARAM, method,
			    "%zu buffers, %zu peer_buffers, %zu lengths", n, b->peers.count,
			    b->lengths.count);
}

static int32_t batch_move(void *handle, const struct batch *b, bool write)
{
	uint32_t n = (uint32_t)b->buffers.count;
	void **local = (void **)b->buffers.items, **peer = (void **)b->peers.items;
	size_t *lengths = (size_t *)b->lengths.items;
	int32_t r;

	if (n == 0)
		return 0;
	Py_BEGIN_ALLOW_THREADS
	r = write ? smem_trans_batch_write(handle, (const void **)local, b->session.s, peer,
					   lengths, n)
		  : smem_trans_batch_read(handle, local, b->session.s, (const void **)peer, lengths,
					  n, b->flags);
	Py_END_ALLOW_THREADS
	if (r != 0)
		error_seen_c();
	return r;
}

static PyObject *engine_batch_write(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				    PyObject *kwnames)
{
	static const char method[] = "TransferEngine.batch_transfer_sync_write";
	struct engine *e = (struct engine *)self;
	PyObject *result = NULL;
	struct batch b;

	if (!batch_args(&batch_write_params, args, nargs, kwnames, &b))
		return NULL;
	if (!live(e)) {
		result = not_live(method);
	} else {
		void *handle = e->handle;
		int32_t r = batch_check(&b, method);
		result = PyLong_FromLong(r != 0 ? r : batch_move(handle, &b, true));
	}
	batch_free(&b);
	return result;
}

static PyObject *engine_batch_read(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	static const char method[] = "TransferEngine.batch_transfer_sync_read";
	struct engine *e = (struct engine *)self;
	PyObject *result = NULL;
	struct batch b;

	if (!batch_args(&batch_read_params, args, nargs, kwnames, &b))
		return NULL;
	if (!live(e)) {
		result = not_live(method);
	} else {
		void *handle = e->handle;
		int32_t r = check_read(method, b.flags, smem_trans_batch_read != NULL);
		if (r == 0)
			r = batch_check(&b, method);
		result = PyLong_FromLong(r != 0 ? r : batch_move(handle, &b, false));
	}
	batch_free(&b);
	return result;
}

static PyObject *engine_destroy(PyObject *self, PyObject *unused)
{
	struct engine *e = (struct engine *)self;
	void *handle = take_handle(e);

	(void)unused;
	if (creating(e))
		e->cancelled = true;
	drop_port(e);
	if (handle) {
		Py_BEGIN_ALLOW_THREADS
		smem_trans_destroy(handle, 0);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

static PyObject *engine_uninitialize(PyObject *self, PyObject *unused)
{
	struct engine *e = (struct engine *)self;

	(void)unused;
	if (live(e)) {
		port_list_drop(owner_live);
		e->handle = NULL;
		process_next_epoch(BIT(SERVICE_TRANS));
		Py_BEGIN_ALLOW_THREADS
		smem_trans_uninit(0);
		Py_END_ALLOW_THREADS
	}
	Py_RETURN_NONE;
}

static PyObject *engine_enter(PyObject *self, PyObject *unused)
{
	(void)unused;
	Py_INCREF(self);
	return self;
}

static PyObject *engine_exit(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
	(void)args;
	(void)nargs;
	return engine_destroy(self, NULL);
}

static PyMethodDef methods[] = {
    {"initialize", FAST(engine_initialize), FASTCALL, initialize_doc},
    {"get_rpc_port", engine_get_rpc_port, METH_NOARGS, get_rpc_port_doc},
    {"register_memory", FAST(engine_register), FASTCALL, register_doc},
    {"unregister_memory", FAST(engine_unregister), FASTCALL, unregister_doc},
    {"batch_register_memory", FAST(engine_batch_register), FASTCALL, batch_register_doc},
    {"transfer_sync_write", FAST(engine_write), FASTCALL, write_doc},
    {"transfer_sync_read", FAST(engine_read), FASTCALL, read_doc},
    {"batch_transfer_sync_write", FAST(engine_batch_write), FASTCALL, batch_write_doc},
    {"batch_transfer_sync_read", FAST(engine_batch_read), FASTCALL, batch_read_doc},
    {"destroy", engine_destroy, METH_NOARGS, destroy_doc},
    {"unInitialize", engine_uninitialize, METH_NOARGS, uninitialize_doc},
    {"__enter__", engine_enter, METH_NOARGS, "__enter__($self, /)\n--\n\nThe engine itself."},
    {"__exit__", FAST(engine_exit), METH_FASTCALL,
     "__exit__($self, exc_type, exc_value, traceback, /)\n--\n\nCalls destroy()."},
    {0},
};

static PyMemberDef members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct engine, weak), READONLY, NULL},
    {0},
};

static PyType_Slot slots[] = {
    {Py_tp_init, engine_init}, {Py_tp_dealloc, engine_dealloc}, {Py_tp_methods, methods},
    {Py_tp_members, members},  {Py_tp_doc, (void *)engine_doc}, {0},
};

PyType_Spec engine_spec = {.name = "mf_adapter.TransferEngine",
			   .basicsize = sizeof(struct engine),
			   .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
			   .slots = slots};

void *engine_handle(PyObject *self)
{
	struct engine *e = (struct engine *)self;

	return live(e) ? e->handle : BAD_HANDLE;
}
