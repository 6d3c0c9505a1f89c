"""A hub on this machine: as much of the Hugging Face Hub's interface as its client calls to make a
repository, put files into it and fetch them again. What is large goes by git-lfs, as there.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse

LARGE = 4000  # bytes


class Hub:
    """Its state, and what goes wrong in it.

    Attributes:
        revisions: {repository: {branch or commit: {path: bytes}}}.
        heads: {repository: {branch: commit}}.
        objects: {sha256: bytes} of large files, and received: sha256 of each, as they came.
        fail_after: large files that are taken before the line is cut; None for all.
        damage: path → bytes that are sent in the place of its own.
    """

    def __init__(self):
        self.revisions, self.heads, self.objects, self.received = {}, {}, {}, []
        self.fail_after, self.damage, self.url = None, {}, ''

    def commit(self, repository, branch, files):
        text = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})
        commit = hashlib.sha1(f'{text}{len(self.revisions[repository])}'.encode()).hexdigest()
        self.revisions[repository][commit] = dict(files)
        self.heads[repository][branch] = commit
        return commit

    def files(self, repository, revision):
        """(commit, {path: bytes}), or None."""
        commit = self.heads.get(repository, {}).get(revision, revision)
        found = self.revisions.get(repository, {}).get(commit)
        return None if found is None else (commit, found)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def answer(self, status, content=None, **headers):
        body = b'' if content is None else content
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {'Content-Length': str(len(body)), **headers}.items():
            self.send_header(name.replace('_', '-'), value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def refuse(self, code):
        self.answer(404, {'error': code}, X_Error_Code=code)

    def handle_any(self):
        hub = self.server.hub
        length = int(self.headers.get('Content-Length') or 0)
        chunked = self.headers.get('Transfer-Encoding') == 'chunked'
        body = self.chunks() if chunked else self.rfile.read(length)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, f'{self.command} {path}'):
                method(self, hub, body, *found.groups())
                return
        self.answer(404, {'error': f'no route {self.command} {path}'})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def create(self, hub, body):
        wanted = json.loads(body)
        name = f'{wanted["organization"]}/{wanted["name"]}'
        if name in hub.revisions:
            self.answer(409, {'error': 'exists', 'url': f'{hub.url}/{name}'})
            return
        hub.revisions[name], hub.heads[name] = {}, {}
        hub.commit(name, 'main', {'.gitattributes': b''})
        self.answer(200, {'url': f'{hub.url}/{name}', 'name': name})

    def whoami(self, hub, body):
        self.answer(200, {'type': 'user', 'name': 'owner', 'orgs': []})

    def branch(self, hub, body, name, branch):
        hub.heads[name].setdefault(branch, hub.heads[name]['main'])
        self.answer(200, {})

    def yaml(self, hub, body):
        self.answer(200, {'errors': [], 'warnings': []})

    def modes(self, hub, body, name, revision):
        files = [
            {
                'path': file['path'],
                'uploadMode': 'lfs' if file['size'] > LARGE else 'regular',
                'shouldIgnore': False,
            }
            for file in json.loads(body)['files']
        ]
        self.answer(200, {'files': files})

    def batch(self, hub, body, name):
        objects = []
        for item in json.loads(body)['objects']:
            if item['oid'] not in hub.objects:
                href = f'{hub.url}/objects/{item["oid"]}'
                item['actions'] = {'upload': {'href': href, 'header': {}}}
            objects.append(item)
        self.answer(200, {'transfer': 'basic', 'objects': objects})

    def put(self, hub, body, oid):
        if hub.fail_after is not None and len(hub.received) >= hub.fail_after:
            self.answer(403, {'error': 'the line is cut'})
            return
        hub.objects[oid] = body
        hub.received.append(oid)
        self.answer(200)

    def take(self, hub, body, name, branch):
        _, files = hub.files(name, branch)
        files = dict(files)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry['value']
            if entry['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif entry['key'] == 'lfsFile':
                files[value['path']] = hub.objects[value['oid']]
            elif entry['key'] == 'deletedFile':
                del files[value['path']]
        commit = hub.commit(name, branch, files)
        url = f'{hub.url}/{name}/commit/{commit}'
        self.answer(200, {'success': True, 'commitOid': commit, 'commitUrl': url})

    def info(self, hub, body, name, revision):
        if name not in hub.revisions:
            self.refuse('RepoNotFound')
        elif (found := hub.files(name, revision)) is None:
            self.refuse('RevisionNotFound')
        else:
            siblings = [{'rfilename': path} for path in found[1]]
            self.answer(200, {'id': name, 'sha': found[0], 'siblings': siblings})

    def tree(self, hub, body, name, revision):
        _, files = hub.files(name, revision)
        self.answer(
            200,
            [
                {'type': 'file', 'path': path, 'size': len(data), 'oid': _sha1(data)}
                for path, data in files.items()
            ],
        )

    def resolve(self, hub, body, name, revision, path):
        found = hub.files(name, revision)
        if found is None or path not in found[1]:
            self.refuse('EntryNotFound')
            return
        data = hub.damage.get(path, found[1][path])
        self.answer(200, data, ETag=f'"{_sha1(found[1][path])}"', X_Repo_Commit=found[0])


def _sha1(data):
    return hashlib.sha1(data).hexdigest()


_NAME = '([^/]+/[^/]+)'
ROUTES = (
    ('POST /api/repos/create', _Handler.create),
    ('GET /api/whoami-v2', _Handler.whoami),
    ('POST /api/validate-yaml', _Handler.yaml),
    (f'POST /api/models/{_NAME}/branch/(.+)', _Handler.branch),
    (f'POST /api/models/{_NAME}/preupload/(.+)', _Handler.modes),
    (rf'POST /{_NAME}\.git/info/lfs/objects/batch', _Handler.batch),
    ('PUT /objects/(.+)', _Handler.put),
    (f'POST /api/models/{_NAME}/commit/(.+)', _Handler.take),
    (f'GET /api/models/{_NAME}/revision/(.+)', _Handler.info),
    (f'GET /api/models/{_NAME}/tree/(.+)', _Handler.tree),
    (f'(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)', _Handler.resolve),
)


@contextlib.contextmanager
def serving():
    """A hub that listens on a port of its own as long as the context lasts."""
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
    server.hub = Hub()
    server.hub.url = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
