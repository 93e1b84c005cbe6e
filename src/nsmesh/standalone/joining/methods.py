"""Method paths of the mesh port."""

from __future__ import annotations

JOIN = "/nsmesh.join.Join/Join"
RENEW = "/nsmesh.join.Join/Renew"
BEAT = "/nsmesh.join.Member/Beat"
SIGN = "/nsmesh.join.Member/Sign"
LEAVE = "/nsmesh.join.Member/Leave"
