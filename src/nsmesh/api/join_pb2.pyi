from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Claim(_message.Message):
    __slots__ = ("token_id", "name", "mesh", "version", "time", "address", "manager_url", "request")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MESH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_URL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    token_id: str
    name: str
    mesh: str
    version: str
    time: float
    address: str
    manager_url: str
    request: bytes
    def __init__(self, token_id: _Optional[str] = ..., name: _Optional[str] = ..., mesh: _Optional[str] = ..., version: _Optional[str] = ..., time: _Optional[float] = ..., address: _Optional[str] = ..., manager_url: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class Signed(_message.Message):
    __slots__ = ("claim", "proof")
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    claim: bytes
    proof: bytes
    def __init__(self, claim: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("name", "address", "manager_url", "version", "joined", "seen")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_URL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    manager_url: str
    version: str
    joined: float
    seen: float
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., manager_url: _Optional[str] = ..., version: _Optional[str] = ..., joined: _Optional[float] = ..., seen: _Optional[float] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("svid", "bundle", "registry_url", "nodes")
    SVID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REGISTRY_URL_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    svid: bytes
    bundle: bytes
    registry_url: str
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    def __init__(self, svid: _Optional[bytes] = ..., bundle: _Optional[bytes] = ..., registry_url: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ...) -> None: ...

class SignRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class News(_message.Message):
    __slots__ = ("nodes", "bundle", "removed")
    class RemovedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NODES_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    bundle: bytes
    removed: _containers.ScalarMap[str, float]
    def __init__(self, nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., bundle: _Optional[bytes] = ..., removed: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
