-- Rows of revision 0001. A job's id is its status, and what it has been asked to do.
INSERT INTO datasets (id, name, classes, counts, num_images, num_bytes, created_at)
VALUES ('d1', 'shapes', '["circle", "square"]', '{"train": {"circle": 5, "square": 5}}', 10, 3000000000, 1000.5);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('queued', 'first', 'd1', 24000000, 'bundled', 'lite_residual+bias', '{"epochs": 2}', 'queued', NULL, 0, 1001.25, NULL, NULL, 0, NULL, 0, false, NULL, NULL);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('running', 'its worker died', 'd1', 24000000, 'bundled', 'head', '{"epochs": 2}', 'running', 'search', 0.4, 1002.25, 1003, NULL, 2, 1004, 1, false, NULL, NULL);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('running-cancel', 'to be cancelled', 'd1', 24000000, 'bundled', 'head', '{"epochs": 2}', 'running', 'train', 0.7, 1003.25, 1004, NULL, 1, 1005, 0, true, NULL, NULL);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('succeeded', 'done', 'd1', 24000000, 'bundled', 'head', '{"epochs": 2}', 'succeeded', 'export', 1, 1004.25, 1005, 1006, 1, NULL, 0, false, '{"resolution": 64}', NULL);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('failed', 'no luck', 'd1', 24000000, 'bundled', 'head', '{"epochs": 2}', 'failed', 'train', 0.6, 1005.25, 1006, 1007, 3, NULL, 3, false, NULL, 'it''s broken');

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, method, settings, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, cancel_requested, result, error)
VALUES ('cancelled', 'not wanted', 'd1', 24000000, 'bundled', 'head', '{"epochs": 2}', 'cancelled', 'adapt', 0.2, 1006.25, 1007, 1008, 1, NULL, 0, true, NULL, NULL);

INSERT INTO trials (job_id, number, candidate, predicted_peak_bytes, accuracy, seconds, attempt, finished_at)
VALUES ('succeeded', 0, '{"resolution": 64}', 3000000000, 0.5, 1.5, 1, 1005.5),
       ('succeeded', 1, '{"resolution": 96}', 4000000000, 0.75, 2.5, 1, 1005.75),
       ('running', 0, '{"resolution": 64}', 3000000000, 0.5, 1.5, 1, 1003.5),
       ('running', 1, '{"resolution": 96}', 4000000000, 0.75, 2.5, 2, 1003.75);

INSERT INTO artifacts (job_id, kind, path, num_bytes, sha256, detail, attempt, created_at)
VALUES ('succeeded', 'bundle', '1/model.zip', 5000000000, 'ab', '{"epochs": 2}', 1, 1006),
       ('failed', 'adapted', '3/adapted', 1000, NULL, '{}', 3, 1006.5);
