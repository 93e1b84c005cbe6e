"""Answers what an API server asks an admission webhook, over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Collection
from http import HTTPStatus
from typing import Any

import structlog

from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.metrics import Counter, Histogram
from nsmesh.kubernetes.https_session import Answer, Request
from nsmesh.kubernetes.injection import DRIVERS, Injection, Object, bars_directories
from nsmesh.kubernetes.patches import answer, kind_of, level_of
from nsmesh.kubernetes.webhooks import PATH

log = structlog.get_logger()

REVIEWS = Counter("nsm_webhook_reviews", "Objects that were reviewed, by what came of it.", ("outcome",))
SECONDS = Histogram("nsm_webhook_seconds", "How long a review took.")
READY, LIVE = "/ready", "/live"
PATCHED, REFUSED, LEFT, FAILED = "patched", "refused", "left alone", "failed"


class Reviewer:
    """Serves ``/mutate``, ``/ready`` and ``/live``.

    ``namespace`` reads a namespace. ``ready`` says why reviews cannot be answered now, or nothing.
    ``drivers`` says which CSI drivers the cluster has.
    """

    def __init__(
        self,
        settings: Injection,
        namespace: Callable[[str], Awaitable[Object]],
        ready: Callable[[], str],
        drivers: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        self._drivers = drivers
        self._settings = settings
        self._namespace = namespace
        self._ready = ready

    async def __call__(self, request: Request) -> Answer:
        """Return what a request is answered."""
        if request.path == PATH:
            if request.method != "POST":
                return _said(HTTPStatus.METHOD_NOT_ALLOWED, f"POST an AdmissionReview to {PATH}")
            return await self._timed(request.body)
        if request.path == READY:
            lacking = self._ready()
            return _said(HTTPStatus.SERVICE_UNAVAILABLE if lacking else HTTPStatus.OK, lacking or "ready")
        if request.path == LIVE:
            return _said(HTTPStatus.OK, "live")
        return _said(HTTPStatus.NOT_FOUND, f"nothing is served here but {PATH}, {READY} and {LIVE}")

    async def _timed(self, body: bytes) -> Answer:
        begun = time.monotonic()
        try:
            review = _parsed(body)
            outcome, answered = await self._reviewed(review)
        except Invalid as error:
            REVIEWS.add(FAILED)
            return _said(HTTPStatus.BAD_REQUEST, str(error))
        except MeshError as error:
            # No answer about the object: what becomes of it is the failure policy's business.
            REVIEWS.add(FAILED)
            log.warning("a review cannot be answered", error=str(error))
            return _said(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        REVIEWS.add(outcome)
        SECONDS.observe(time.monotonic() - begun)
        return Answer(HTTPStatus.OK, json.dumps(answered).encode())

    async def _reviewed(self, review: Object) -> tuple[str, Object]:
        request = review.get("request")
        asked: Object = request if isinstance(request, dict) else {}
        where = asked.get("namespace")
        namespace: Object = {}
        if kind_of(asked) and asked.get("operation") == "CREATE" and isinstance(where, str) and where:
            namespace = await self._namespace(where)
        drivers: Collection[str] = DRIVERS
        if bars_directories(level_of(namespace)):
            drivers = await self._drivers()
        try:
            answered = answer(review, self._settings, namespace, drivers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            # API servers send objects that their schema has passed; this is none.
            raise Invalid(f"the webhook was sent an object that is no {kind_of(asked)}") from error
        response = answered["response"]
        outcome = PATCHED if "patch" in response else LEFT if response["allowed"] else REFUSED
        if outcome != LEFT:
            status = response.get("status", {})
            log.info(
                outcome,
                kind=kind_of(asked),
                namespace=where,
                name=_name(asked),
                **({"why": status["message"]} if status else {}),
            )
        return outcome, answered


def _parsed(body: bytes) -> Object:
    try:
        review: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Invalid("the webhook was sent something that is no JSON") from error
    if not isinstance(review, dict):
        raise Invalid("the webhook was sent something that is no AdmissionReview")
    return review


def _name(request: Object) -> str:
    made = request.get("object")
    meta = made.get("metadata") if isinstance(made, dict) else None
    known = meta if isinstance(meta, dict) else {}
    return str(request.get("name") or known.get("name") or known.get("generateName") or "")


def _said(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(), "text/plain")
