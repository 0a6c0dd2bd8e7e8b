/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The module: state, types, functions. Public modules pick what is theirs from it; each function
 * and type says by its __module__ where it is public. Import starts no thread and opens nothing.
 */
#include "smem_py.h"

int add_function(PyObject *module, const char *home, const char *attribute, PyMethodDef *def)
{
	PyObject *name = PyUnicode_FromString(home);
	PyObject *f = name ? PyCFunction_NewEx(def, module, name) : NULL;
	int r = f ? PyModule_AddObjectRef(module, attribute, f) : -1;

	Py_XDECREF(f);
	Py_XDECREF(name);
	return r;
}

static int add_type(PyObject *module, PyType_Spec *spec, const char *attribute, PyObject **ret)
{
	*ret = PyType_FromModuleAndSpec(module, spec, NULL);
	return *ret ? PyModule_AddObjectRef(module, attribute, *ret) : -1;
}

static int add_types(PyObject *module, struct state *s)
{
	if (add_type(module, &bm_config_spec, "BmConfig", &s->bm_config) < 0 ||
	    add_type(module, &shm_config_spec, "ShmConfig", &s->shm_config) < 0 ||
	    add_type(module, &copy_2d_spec, "CopyData2DParams", &s->copy_2d) < 0 ||
	    add_type(module, &region_spec, "_Region", &s->region) < 0 ||
	    add_type(module, &big_memory_spec, "BigMemory", &s->big_memory) < 0 ||
	    add_type(module, &share_memory_spec, "ShareMemory", &s->share_memory) < 0 ||
	    add_type(module, &engine_spec, "TransferEngine", &s->engine) < 0)
		return -1;
	return 0;
}

static int module_exec(PyObject *module)
{
	struct state *state = PyModule_GetState(module);
	PyObject *errors = PyImport_ImportModule("mf_smem._errors");

	if (!errors)
		return -1;
	state->smem_error = PyObject_GetAttrString(errors, "SmemError");
	Py_DECREF(errors);
	if (!state->smem_error || process_setup() < 0 || add_types(module, state) < 0 ||
	    common_functions(module) < 0 || bm_functions(module) < 0 || shm_functions(module) < 0 ||
	    perf_functions(module) < 0 || callback_setup(module) < 0)
		return -1;
	return 0;
}

/* Every reference of the state, for traverse and clear. */
#define EACH_REFERENCE(X)                                                                          \
	X(smem_error)                                                                              \
	X(bm_config) X(shm_config) X(copy_2d) X(region) X(big_memory) X(share_memory) X(engine)

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
	struct state *s = PyModule_GetState(module);

#define VISIT(field) Py_VISIT(s->field);
	EACH_REFERENCE(VISIT)
	return 0;
}

/* smem_error stays while objects may still raise it: they reach the state through their type. */
static int module_clear(PyObject *module)
{
	struct state *s = PyModule_GetState(module);

#define CLEAR(field) Py_CLEAR(s->field);
	EACH_REFERENCE(CLEAR)
	return 0;
}

static void module_free(void *module)
{
	module_clear(module);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, module_exec}, {0}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "mf_smem._smem",
    .m_doc = "The C library; use mf_smem, mf_smem.bm, mf_smem.shm and mf_adapter.",
    .m_size = sizeof(struct state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__smem(void);

PyMODINIT_FUNC PyInit__smem(void)
{
	return PyModuleDef_Init(&definition);
}
