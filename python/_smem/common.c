/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Functions common to the services: mf_smem itself, and those that mf_adapter shares.
 */
#include "smem_py.h"

#include <string.h>

PARAMS(initialize_params, "initialize", 0, "flags");
PARAMS(store_params, "create_config_store", 1, "store_url");
PARAMS(level_params, "set_log_level", 1, "level");
PARAMS(logger_params, "set_extern_logger", 1, "log_fn");
PARAMS(strerror_params, "strerror", 1, "code");
PARAMS(decrypt_params, "register_decrypt_handler", 1, "py_decrypt_func");

static PyObject *initialize(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			    PyObject *kwnames)
{
	PyObject *a[1];
	uint32_t flags = 0;
	int32_t r;

	(void)module;
	if (!args_bind(&initialize_params, args, nargs, kwnames, a) ||
	    !arg_u32(a[0], "flags", &flags))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_init(flags);
	Py_END_ALLOW_THREADS
	return error_code(r);
}

static PyObject *uninitialize(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (!process_no_views("uninitialize", ALL_SERVICES))
		return NULL;
	process_next_epoch(ALL_SERVICES);
	Py_BEGIN_ALLOW_THREADS
	smem_uninit();
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *create_config_store(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				     PyObject *kwnames)
{
	PyObject *a[1];
	struct text url = {0};
	int32_t r;

	(void)module;
	if (!args_bind(&store_params, args, nargs, kwnames, a) ||
	    !arg_text(a[0], "store_url", &url))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_create_config_store(url.s);
	Py_END_ALLOW_THREADS
	text_free(&url);
	return error_code(r);
}

static PyObject *set_log_level(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
			       PyObject *kwnames)
{
	PyObject *a[1];
	int32_t level = 0, r;

	(void)module;
	if (!args_bind(&level_params, args, nargs, kwnames, a) || !arg_i32(a[0], "level", &level))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	r = smem_set_log_level(level);
	Py_END_ALLOW_THREADS
	return error_code(r);
}

static PyObject *set_extern_logger(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	PyObject *a[1];

	(void)module;
	if (!args_bind(&logger_params, args, nargs, kwnames, a) ||
	    (a[0] != Py_None && !arg_callable(a[0], "log_fn")) ||
	    !callback_main_interpreter("set_extern_logger"))
		return NULL;
	return error_code(callback_set_logger(a[0]));
}

static PyObject *register_decrypt_handler(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
					  PyObject *kwnames)
{
	PyObject *a[1];

	(void)module;
	if (!args_bind(&decrypt_params, args, nargs, kwnames, a) ||
	    (a[0] != Py_None && !arg_callable(a[0], "py_decrypt_func")) ||
	    !callback_main_interpreter("register_decrypt_handler"))
		return NULL;
	return error_code(callback_set_decrypt(a[0]));
}

static PyObject *text_object(const char *text)
{
	return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

static PyObject *get_last_err_msg(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return text_object(error_last());
}

static PyObject *get_and_clear_last_err_msg(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	return text_object(error_last_clear());
}

static PyObject *strerror_function(PyObject *module, PyObject *const *args, Py_ssize_t nargs,
				   PyObject *kwnames)
{
	PyObject *a[1];
	int32_t code = 0;

	(void)module;
	if (!args_bind(&strerror_params, args, nargs, kwnames, a) || !arg_i32(a[0], "code", &code))
		return NULL;
	return text_object(smem_strerror(code));
}

static const char initialize_doc[] =
    "initialize($module, /, flags=0)\n--\n\n"
    "Initialise the library (smem_init). Optional; returns 0, also when repeated. flags is\n"
    "reserved, 0. Does not block.";
static const char uninitialize_doc[] =
    "uninitialize($module, /)\n--\n\n"
    "Counterpart of everything: destroys all objects, sessions and stores (smem_uninit).\n\n"
    "Harmless when nothing is initialised; everything can be used again afterwards. Raises\n"
    "BufferError while views of pool memory are alive. Blocks for data in flight, and at most 10\n"
    "seconds beyond it.";
static const char store_doc[] =
    "create_config_store($module, /, store_url)\n--\n\n"
    "Host a config store in this process until uninitialize() or its end\n"
    "(smem_create_config_store).\n\n"
    "store_url is 'tcp://HOST:PORT'; 0.0.0.0 and [::] listen on all addresses. Returns 0, also\n"
    "when this process has that store already, or -2000, -2009 (port taken), -2024, -2025, -2001,\n"
    "-2002; get_last_err_msg() explains it. Blocks at most 2 seconds.\n\n"
    ">>> create_config_store('tcp://0.0.0.0:8570')\n0";
static const char level_doc[] =
    "set_log_level($module, /, level)\n--\n\n"
    "Records below the level reach nobody: 0 debug, 1 info, 2 warn (initial), 3 error\n"
    "(smem_set_log_level). Returns 0, or -2000 for other values. Does not block.";
static const char logger_doc[] =
    "set_extern_logger($module, /, log_fn)\n--\n\n"
    "Give every record to log_fn(level, text) instead of standard error "
    "(smem_set_extern_logger).\n\n"
    "Process-wide, the last one counts; called from any thread, records of that thread meanwhile\n"
    "are dropped; an exception in it goes to sys.unraisablehook. Returns 0. None: the present\n"
    "function is dropped, records go to standard error again, returns -2000. Does not block.\n\n"
    ">>> set_extern_logger(lambda level, text: logging.log(10 * level + 10, text))\n0";
static const char last_doc[] =
    "get_last_err_msg($module, /)\n--\n\n"
    "Message of the last failure in this thread, '' if none (smem_get_last_err_msg). Does not\n"
    "block.";
static const char last_clear_doc[] =
    "get_and_clear_last_err_msg($module, /)\n--\n\n"
    "The same, and clears it (smem_get_and_clear_last_err_msg). Does not block.";
static const char strerror_doc[] =
    "strerror($module, /, code)\n--\n\n"
    "Text of a code, for unknown ones too (smem_strerror). Does not block.";
static const char decrypt_doc[] =
    "register_decrypt_handler($module, /, py_decrypt_func)\n--\n\n"
    "Function that turns the contents of the tlsPkPwd file into the pass phrase\n"
    "(smem_register_decrypt_handler).\n\n"
    "It gets the cipher text and returns the plain text, both str, in the thread that creates the\n"
    "store object. An exception (reported through sys.unraisablehook), another type, '' or a text\n"
    "too long for the library fails that creation with -2025. Returns 0; None: -2000, and the\n"
    "present function stays. Does not block.";

struct entry {
	const char *attribute;
	const char *home;
	PyMethodDef def;
};

static struct entry functions[] = {
    {"initialize", "mf_smem", {"initialize", FAST(initialize), FASTCALL, initialize_doc}},
    {"uninitialize", "mf_smem", {"uninitialize", uninitialize, METH_NOARGS, uninitialize_doc}},
    {"create_config_store",
     "mf_smem",
     {"create_config_store", FAST(create_config_store), FASTCALL, store_doc}},
    {"set_log_level", "mf_smem", {"set_log_level", FAST(set_log_level), FASTCALL, level_doc}},
    {"set_extern_logger",
     "mf_smem",
     {"set_extern_logger", FAST(set_extern_logger), FASTCALL, logger_doc}},
    {"get_last_err_msg", "mf_smem", {"get_last_err_msg", get_last_err_msg, METH_NOARGS, last_doc}},
    {"get_and_clear_last_err_msg",
     "mf_smem",
     {"get_and_clear_last_err_msg", get_and_clear_last_err_msg, METH_NOARGS, last_clear_doc}},
    {"strerror", "mf_smem", {"strerror", FAST(strerror_function), FASTCALL, strerror_doc}},
    {"register_decrypt_handler",
     "mf_smem",
     {"register_decrypt_handler", FAST(register_decrypt_handler), FASTCALL, decrypt_doc}},
};

int common_functions(PyObject *module)
{
	for (size_t i = 0; i < ARRAY(functions); i++) {
		if (add_function(module, functions[i].home, functions[i].attribute,
				 &functions[i].def) < 0)
			return -1;
	}
	return 0;
}
