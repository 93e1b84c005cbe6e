from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Manifest(_message.Message):
    __slots__ = ("text", "source", "directory")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DIRECTORY_FIELD_NUMBER: _ClassVar[int]
    text: str
    source: str
    directory: str
    def __init__(self, text: _Optional[str] = ..., source: _Optional[str] = ..., directory: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("manifests", "wait")
    MANIFESTS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    manifests: _containers.RepeatedCompositeFieldContainer[Manifest]
    wait: bool
    def __init__(self, manifests: _Optional[_Iterable[_Union[Manifest, _Mapping]]] = ..., wait: _Optional[bool] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("manifests", "kind", "name")
    MANIFESTS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    manifests: _containers.RepeatedCompositeFieldContainer[Manifest]
    kind: str
    name: str
    def __init__(self, manifests: _Optional[_Iterable[_Union[Manifest, _Mapping]]] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("what", "name", "watch")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    WATCH_FIELD_NUMBER: _ClassVar[int]
    what: str
    name: str
    watch: bool
    def __init__(self, what: _Optional[str] = ..., name: _Optional[str] = ..., watch: _Optional[bool] = ...) -> None: ...

class ConnectRequest(_message.Message):
    __slots__ = ("url", "netns", "pid", "client", "keep", "node")
    URL_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    url: str
    netns: str
    pid: int
    client: str
    keep: bool
    node: str
    def __init__(self, url: _Optional[str] = ..., netns: _Optional[str] = ..., pid: _Optional[int] = ..., client: _Optional[str] = ..., keep: _Optional[bool] = ..., node: _Optional[str] = ...) -> None: ...

class DisconnectRequest(_message.Message):
    __slots__ = ("connection", "client", "netns", "pid")
    CONNECTION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    NETNS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    connection: str
    client: str
    netns: str
    pid: int
    def __init__(self, connection: _Optional[str] = ..., client: _Optional[str] = ..., netns: _Optional[str] = ..., pid: _Optional[int] = ...) -> None: ...

class TokenRequest(_message.Message):
    __slots__ = ("lifetime",)
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    lifetime: float
    def __init__(self, lifetime: _Optional[float] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("text", "address")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    text: str
    address: str
    def __init__(self, text: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class NodeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnitRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("executable",)
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    executable: str
    def __init__(self, executable: _Optional[str] = ...) -> None: ...

class UpgradeRequest(_message.Message):
    __slots__ = ("executable", "version", "check")
    EXECUTABLE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    executable: str
    version: str
    check: bool
    def __init__(self, executable: _Optional[str] = ..., version: _Optional[str] = ..., check: _Optional[bool] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Item(_message.Message):
    __slots__ = ("json", "deleted", "synced")
    JSON_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SYNCED_FIELD_NUMBER: _ClassVar[int]
    json: str
    deleted: bool
    synced: bool
    def __init__(self, json: _Optional[str] = ..., deleted: _Optional[bool] = ..., synced: _Optional[bool] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("text", "json", "failed", "remedy")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    REMEDY_FIELD_NUMBER: _ClassVar[int]
    text: str
    json: str
    failed: bool
    remedy: str
    def __init__(self, text: _Optional[str] = ..., json: _Optional[str] = ..., failed: _Optional[bool] = ..., remedy: _Optional[str] = ...) -> None: ...
