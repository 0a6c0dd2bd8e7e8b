/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. The C library keeps one last error per thread; a failure that is found here, before any C
 * call, is kept beside it, and whoever failed last has the word. So get_last_err_msg() explains
 * every code that a function of these packages returned.
 */
#include "smem_py.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char own_text[1024];
static _Thread_local char cleared_text[1024];

static const struct {
	int32_t code;
	const char *name;
} codes[] = {
    {SMEM_INVALID_PARAM, "SMEM_INVALID_PARAM"},		{SMEM_REPEAT_CALL, "SMEM_REPEAT_CALL"},
    {SMEM_NOT_INITIALIZED, "SMEM_NOT_INITIALIZED"},	{SMEM_NOT_SUPPORTED, "SMEM_NOT_SUPPORTED"},
    {SMEM_OBJECT_NOT_EXISTS, "SMEM_OBJECT_NOT_EXISTS"},
};

static const char *code_name(int32_t code)
{
	for (size_t i = 0; i < ARRAY(codes); i++) {
		if (codes[i].code == code)
			return codes[i].name;
	}
	return "SMEM_ERROR";
}

static PyObject *decode(const char *text)
{
	return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "replace");
}

static PyObject *raise_with(struct state *state, int32_t code, const char *operation,
			    PyObject *message)
{
	PyObject *e =
	    message ? PyObject_CallFunction(state->smem_error, "iOs", (int)code, message, operation)
		    : NULL;

	Py_XDECREF(message);
	if (e) {
		PyErr_SetObject(state->smem_error, e);
		Py_DECREF(e);
	}
	return NULL;
}

PyObject *error_raise(struct state *state, int32_t code, const char *operation)
{
	error_seen_c();
	return raise_with(state, code, operation, decode(smem_get_last_err_msg()));
}

PyObject *error_raise_last(struct state *state, const char *operation)
{
	return error_raise(state, smem_get_last_err_code(), operation);
}

PyObject *error_raise_text(struct state *state, int32_t code, const char *operation,
			   const char *detail)
{
	error_record(code, operation, "%s", detail);
	return raise_with(state, code, operation, decode(own_text));
}

int32_t error_record(int32_t code, const char *operation, const char *format, ...)
{
	va_list ap;
	int n = snprintf(own_text, sizeof(own_text), "%s: %s (%d): ", operation, code_name(code),
			 (int)code);

	va_start(ap, format);
	vsnprintf(own_text + n, sizeof(own_text) - (size_t)n, format, ap);
	va_end(ap);
	for (char *c = own_text; *c; c++) {
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	}
	return code;
}

void error_seen_c(void)
{
	own_text[0] = '\0';
}

const char *error_last(void)
{
	return own_text[0] ? own_text : smem_get_last_err_msg();
}

const char *error_last_clear(void)
{
	const char *text = smem_get_and_clear_last_err_msg();

	if (!own_text[0])
		return text;
	memcpy(cleared_text, own_text, sizeof(cleared_text));
	own_text[0] = '\0';
	return cleared_text;
}

void error_probe_begin(struct error_probe *p)
{
	snprintf(p->text, sizeof(p->text), "%s", error_last_clear());
}

int32_t error_probe_end(struct error_probe *p)
{
	int32_t code = smem_get_last_err_code();

	if (code == 0)
		memcpy(own_text, p->text, sizeof(own_text));
	return code;
}

PyObject *error_code(int32_t code)
{
	if (code != 0)
		error_seen_c();
	return PyLong_FromLong(code);
}
