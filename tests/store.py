"""Buckets on this machine: emulators of Google's and Amazon's storage in this process, for tests
and the processes that they start.
"""

import contextlib
import importlib.util
import logging
import os
import threading
from functools import partial
from http import server as http

import pytest


def _needs(*packages, where):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f'needs {", ".join(missing)}: {where}')


needed = _needs('gcp_storage_emulator', 'gcsfs', where='pip install -e ".[test]"')
needed_of_amazon = _needs('moto', 'flask', 's3fs', where='pip install "moto[server,s3]" s3fs')
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


class Google(dict):
    """The variables of the environment that say where the emulator is; and its server."""

    def __init__(self, handler):
        self._handler, self._port = handler, 0
        self.serve()
        place = f'http://127.0.0.1:{self._port}'
        super().__init__(
            STORAGE_EMULATOR_HOST=place,
            TENSORSTORE_GCS_HTTP_URL=place,
            GOOGLE_CLOUD_PROJECT='tests',
            NO_GCE_CHECK='true',  # asks no machine of Google's who this one is
        )

    def serve(self):
        """Listens (again), on the same port and with what it held."""
        self._httpd = _Quiet(('127.0.0.1', self._port), self._handler)
        self._port = self._httpd.server_port
        threading.Thread(target=self._httpd.serve_forever, daemon=True).start()

    def stop(self):
        """Refuses connections from now on."""
        self._httpd.shutdown()
        self._httpd.server_close()


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
    found = Google(partial(server.RequestHandler, storage))
    for name in ('api', 'gcp-storage-emulator', 'gcp_storage_emulator'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _environment(found):
        try:
            yield found
        finally:
            server.HANDLERS = before
            found.stop()


@contextlib.contextmanager
def amazon():
    """The same on s3://, by another emulator."""
    import fsspec
    from moto.server import ThreadedMotoServer

    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    emulator = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    emulator.start()
    host, port = emulator.get_host_and_port()
    found = {
        'AWS_ENDPOINT_URL': f'http://{host}:{port}',
        'AWS_ACCESS_KEY_ID': 'tests',
        'AWS_SECRET_ACCESS_KEY': 'tests',
        'AWS_DEFAULT_REGION': 'us-east-1',
    }
    with _environment(found):
        try:
            fsspec.filesystem('s3').mkdir(BUCKET)
            yield found
        finally:
            emulator.stop()


@contextlib.contextmanager
def _environment(variables):
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
