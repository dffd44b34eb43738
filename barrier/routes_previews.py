"""Endpoints about previews."""

from __future__ import annotations

from fastapi import APIRouter

from barrier.bodies import NewPreview, PreviewView, Reason
from barrier.context import Connected, Deployer, Reader
from barrier.routing import Route
from barrier.store import previews
from fleet.model import Preview
from fleet.names import Service

router = APIRouter(prefix="/v1/services/{service}/previews", tags=["previews"], route_class=Route)


def _view(preview: Preview) -> PreviewView:
    return PreviewView(
        id=previews.name(preview),
        version=preview.version,
        token=preview.token,
        expires=preview.expires,
        by=preview.by,
    )


@router.get("")
def list_previews(service: Service, api: Connected, _: Reader) -> list[PreviewView]:
    """Who may see which version by a token."""
    return [_view(p) for p in api.store.read(service).plan.previews]


@router.post("", status_code=201)
def create_preview(service: Service, body: NewPreview, api: Connected, who: Deployer) -> PreviewView:
    """A token for a version that is served or runs on canaries.

    Requests that carry it (as the pin header, ``?dpl=`` or the cookie that a document then sets) get that version, from
    the moment that ``applied-EPOCH`` is met. It ends by itself.
    """
    made, plan = previews.create(api.store, service, body.build, body.seconds, who.because(body.reason))
    return _view(made).model_copy(update={"epoch": plan.epoch})


@router.delete("/{preview}", status_code=204)
def revoke_preview(service: Service, preview: str, api: Connected, who: Deployer, reason: Reason = "") -> None:
    """From now on that token opens nothing. ``preview`` is its id, not the token."""
    previews.revoke(api.store, service, preview, who.because(reason))
