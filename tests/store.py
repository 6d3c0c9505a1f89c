"""Buckets on this machine: an emulator of Google's storage in this process, for tests and the
processes that they start.
"""

import contextlib
import importlib.util
import logging
import os
import threading
from functools import partial
from http import server as http

import pytest

NEEDED = 'gcp_storage_emulator', 'gcsfs'
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needed = pytest.mark.skipif(bool(MISSING), reason=f'needs {", ".join(MISSING)} (the extra [test])')
BUCKET = 'tests'  # names of one or two letters are refused


def _conditional(handler):
    """A handler of the emulator with what it lacks and tensorstore relies on: conditions on the
    generation of an object, and its header.
    """
    from gcp_storage_emulator.exceptions import NotFound

    def handle(request, response, storage, *args, **kwargs):
        bucket = request.params['bucket_name']
        name = request.params.get('object_id') or request.query.get('name', [''])[0]
        if not name:  # uploads of other clients, which set no conditions
            return handler(request, response, storage, *args, **kwargs)

        def generation():
            try:
                return storage.get_file_obj(bucket, name)['generation']
            except NotFound:
                return '0'

        before = generation()
        matching = request.query.get('ifGenerationMatch', [before])[0] == before
        if not matching or before in request.query.get('ifGenerationNotMatch', ()):
            request.data  # noqa: B018 (read, or the connection breaks)
            response.status = http.HTTPStatus.PRECONDITION_FAILED
            if matching:
                response.status = http.HTTPStatus.NOT_MODIFIED
            return None
        handler(request, response, storage, *args, **kwargs)
        response['x-goog-generation'] = generation()
        return None

    return handle


class _Quiet(http.HTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients hang up as they like


@contextlib.contextmanager
def google():
    """Serves the bucket `BUCKET` from memory, while the variables of the environment say where.
    Gives these variables.
    """
    from gcp_storage_emulator import server
    from gcp_storage_emulator.handlers import buckets, objects
    from gcp_storage_emulator.storage import Storage

    handlers = objects.download, objects.get, objects.insert
    mended = {handler: _conditional(handler) for handler in handlers}
    before = server.HANDLERS
    server.HANDLERS = tuple(
        (path, {method: mended.get(handler, handler) for method, handler in of.items()})
        for path, of in before
    )
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(BUCKET, storage)
    httpd = _Quiet(('127.0.0.1', 0), partial(server.RequestHandler, storage))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    place = f'http://127.0.0.1:{httpd.server_port}'
    found = {
        'STORAGE_EMULATOR_HOST': place,
        'TENSORSTORE_GCS_HTTP_URL': place,
        'GOOGLE_CLOUD_PROJECT': 'tests',
        'NO_GCE_CHECK': 'true',  # asks no machine of Google's who this one is
    }
    for name in ('api', 'gcp-storage-emulator', 'gcp_storage_emulator'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    former = {name: os.environ.get(name) for name in found}
    os.environ.update(found)
    try:
        yield found
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        server.HANDLERS = before
        httpd.shutdown()
        httpd.server_close()
