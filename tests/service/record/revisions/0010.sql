-- Rows of revision 0009. A job's id is its status, and what it has been asked to do.
INSERT INTO installation (number, id, collected_at)
VALUES (1, 'i1', 1000.5);

INSERT INTO blobs (sha256, key, num_bytes, is_stored, touched_at, created_at)
VALUES ('ab12', 'ab12.1', 3000000000, TRUE, 1001, 1000.5),
       ('cd34', 'cd34.1', 100, TRUE, 1007, 1006.5),
       ('ef56', 'ef56.1', 100, FALSE, 1007, 1006.5);

INSERT INTO datasets (id, name, classes, counts, num_images, num_bytes, report, blob_sha256, created_at)
VALUES ('d1', 'shapes', '["circle", "square"]', '{"train": {"circle": 5, "square": 5}}', 10, 3000000000, '{"notes": []}', 'ab12', 1000.5);

INSERT INTO jobs (id, name, dataset_id, memory_limit_bytes, supernet, chosen_supernet, supernet_probes, method, settings, priority, owner, status, stage, progress, created_at, started_at, finished_at, attempt, lease_expires_at, lost_attempts, stop_request, estimated_finish_at, num_events, result, error)
VALUES ('queued', 'first', 'd1', 24000000, 'auto', NULL, NULL, 'lite_residual+bias', '{"epochs": 2}', 2, '', 'queued', NULL, 0, 1001.25, NULL, NULL, 0, NULL, 0, NULL, NULL, 1, NULL, NULL),
       ('running', 'its worker died', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 1, 'k1', 'running', 'search', 0.4, 1002.25, 1003, NULL, 2, 1004, 1, NULL, 2000, 2, NULL, NULL),
       ('running-cancel', 'to be cancelled', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 0, 'k2', 'running', 'train', 0.7, 1003.25, 1004, NULL, 1, 1005, 0, 'cancel', NULL, 0, NULL, NULL),
       ('succeeded', 'done', 'd1', 24000000, 'auto', 'bundled', '[{"supernet": "bundled", "resolution": 64, "accuracy": 0.5, "standard_error": 0.1}]', 'head', '{"epochs": 2}', 1, '', 'succeeded', 'export', 1, 1004.25, 1005, 1006, 1, NULL, 0, NULL, NULL, 0, '{"resolution": 64}', NULL),
       ('failed', 'no luck', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 1, '', 'failed', 'train', 0.6, 1005.25, 1006, 1007, 3, NULL, 3, NULL, NULL, 0, NULL, 'it''s broken'),
       ('cancelled', 'not wanted', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 1, '', 'cancelled', 'adapt', 0.2, 1006.25, 1007, 1008, 1, NULL, 0, NULL, NULL, 0, NULL, NULL),
       ('paused', 'rests', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 1, '', 'paused', 'adapt', 0.2, 1007.25, 1008, NULL, 1, NULL, 0, NULL, NULL, 0, NULL, NULL),
       ('running-pause', 'to be paused', 'd1', 24000000, 'bundled', NULL, NULL, 'head', '{"epochs": 2}', 1, '', 'running', 'train', 0.7, 1008.25, 1009, NULL, 1, 1010, 0, 'pause', NULL, 0, NULL, NULL);

INSERT INTO attempts (job_id, number, worker, started_at, ended_at, outcome)
VALUES ('running', 1, 'here:1', 1003, 1003.5, 'lost'),
       ('running', 2, 'here:2', 1003.5, NULL, NULL),
       ('paused', 1, 'here:2', 1008, 1009, 'paused');

INSERT INTO events (job_id, number, kind, detail, attempt, created_at)
VALUES ('queued', 1, 'status', '{"status": "queued"}', 0, 1001.25),
       ('running', 1, 'stage', '{"stage": "search"}', 1, 1003.25),
       ('running', 2, 'status', '{"status": "running"}', 2, 1003.5);

INSERT INTO stage_times (job_id, number, attempt, stage, started_at, ended_at)
VALUES ('running', 1, 1, 'search', 1003.25, NULL),
       ('cancelled', 1, 1, 'ingest', 1007, 1007.5);

INSERT INTO trials (job_id, number, candidate, predicted_peak_bytes, lean_peak_bytes, lean_plan, macs, accuracy, loss, num_images, correct, is_complete, reused, seconds, attempt, finished_at)
VALUES ('succeeded', 0, '{"resolution": 64}', 3000000000, 2000000000, '{"batch_size": 8}', 5000000000, 0.5, 1.25, 4, NULL, TRUE, FALSE, 1.5, 1, 1005.5),
       ('succeeded', 1, '{"resolution": 96}', 4000000000, 4000000000, NULL, NULL, 0.75, NULL, NULL, NULL, TRUE, FALSE, 2.5, 1, 1005.75),
       ('running', 0, '{"resolution": 64}', 3000000000, 2000000000, '{"batch_size": 8}', 5000000000, 0.5, 1.25, 4, NULL, TRUE, FALSE, 1.5, 1, 1003.5),
       ('running', 1, '{"resolution": 96}', 4000000000, 4000000000, NULL, NULL, 0.75, NULL, NULL, NULL, TRUE, FALSE, 2.5, 2, 1003.75),
       ('paused', 0, '{"resolution": 96}', 4000000000, 4000000000, '{"batch_size": 8}', 6000000000, 0.75, 1.25, 4, NULL, TRUE, TRUE, 2.5, 1, 1008.5),
       ('paused', 1, '{"resolution": 96}', 4000000000, 4000000000, '{"batch_size": 8}', 6000000000, 0.25, 1.25, 2, NULL, FALSE, FALSE, 2.5, 1, 1008.5);

INSERT INTO artifacts (job_id, kind, path, blob_sha256, key, num_bytes, sha256, detail, attempt, created_at)
VALUES ('succeeded', 'bundle', '1/model.zip', NULL, NULL, 5000000000, 'ab', '{"epochs": 2}', 1, 1006),
       ('failed', 'adapted', '3/adapted', NULL, 'aa', 1000, 'cd', '{}', 3, 1006.5),
       ('cancelled', 'images/meta.json', 'images/meta.json', 'cd34', NULL, 100, 'cd34', '{}', 1, 1007.5);

INSERT INTO idempotency_keys (owner, key, request_sha256, job_id, created_at)
VALUES ('', 'k1', 'cd', 'queued', 1001.25);

INSERT INTO api_keys (id, name, sha256, max_running, created_at, revoked_at)
VALUES ('k1', 'laptop', 'ef', 1, 1001, NULL), ('k2', 'laptop', 'ee', NULL, 1000, 1001);

INSERT INTO workers (id, name, started_at, seen_at)
VALUES ('w1', 'here:2', 1001, 1004);

INSERT INTO webhooks (job_id, url, due_at, num_attempts, told_events, delivered_at, error)
VALUES ('queued', 'https://example.com/', 1001.25, 0, 0, NULL, NULL),
       ('cancelled', 'https://example.com/', 1009, 2, 0, NULL, 'it answers 500');

INSERT INTO contact_sheets (dataset_id, fit, jpeg)
VALUES ('d1', 'crop', 'jpeg');
