"""Datasets that an earlier version stored get a report of today: their fit, how they look."""

from __future__ import annotations

import hashlib
import logging
import uuid

from sqlalchemy import select

from service.datasets.images import opened_image
from service.datasets.layout import Layout, Placed
from service.datasets.looks import TILE
from service.datasets.report import Findings
from service.datasets.store import set_sheets, unpacked_images
from service.errors import DatasetError, ServiceError
from service.record.db.database import Database
from service.record.db.models import ContactSheet, Dataset
from service.record.files.blobs import open_blobs
from service.settings import Settings

logger = logging.getLogger(__name__)


def report_anew(settings: Settings, database: Database) -> int:
    """Report datasets that have no contact sheet yet; how many were.

    What an image is, the upload has checked: one that can't be read today is passed over.
    """
    with database.reading() as session:
        has_sheet = select(ContactSheet.dataset_id)
        rows = session.scalars(
            select(Dataset).where(Dataset.id.not_in(has_sheet)).order_by(Dataset.created_at)
        ).all()
    done = 0
    for row in rows:
        try:
            _report(row, settings, database)
        except ServiceError as error:
            logger.warning("dataset %s can't be reported anew: %s", row.id, error)
        else:
            done += 1
    return done


def _report(dataset: Dataset, settings: Settings, database: Database) -> None:
    settings.incoming_dir.mkdir(parents=True, exist_ok=True)
    scratch = settings.incoming_dir / uuid.uuid4().hex
    with unpacked_images(dataset, settings, open_blobs(settings, database), scratch) as images:
        files = [
            Placed(path=image.original, split=image.split, class_name=dataset.classes[image.label])
            for image in images
        ]
        layout = Layout(name=None, classes=tuple(dataset.classes), files=tuple(files))
        findings = Findings(files)
        for image, placed in zip(images, files, strict=True):
            data = image.path.read_bytes()
            try:
                with opened_image(data, placed.path, settings, side=TILE) as (facts, picture):
                    findings.add(placed, facts, picture, hashlib.sha256(data).digest())
            except DatasetError as error:
                logger.warning("of dataset %s: %s", dataset.id, error)
        num_ignored = (dataset.report or {}).get("ignored_files", 0)
        report = findings.report(layout, num_ignored=num_ignored, skipped=())
    with database.writing() as session:
        row = session.get(Dataset, dataset.id, with_for_update=True)
        if row is not None:
            row.report = report.model_dump(mode="json")
            set_sheets(session, row.id, findings.contact_sheets())
