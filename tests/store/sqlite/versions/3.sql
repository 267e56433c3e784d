CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO _sqlite_migrations ("id", "migration_set", "name", "applied_at") VALUES (1, 'agent_meter', 'm001_ledger', '2026-01-01');
INSERT INTO _sqlite_migrations ("id", "migration_set", "name", "applied_at") VALUES (2, 'agent_meter', 'm002_broad_rollups', '2026-01-01');
INSERT INTO _sqlite_migrations ("id", "migration_set", "name", "applied_at") VALUES (3, 'agent_meter', 'm003_found_by_session', '2026-01-01');
CREATE TABLE agent (agent_id TEXT PRIMARY KEY, name TEXT, tier TEXT, owner TEXT, parent TEXT,
    created INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO agent ("agent_id", "name", "tier", "owner", "parent", "created") VALUES ('ada', NULL, NULL, NULL, NULL, 1767268800000000);
INSERT INTO agent ("agent_id", "name", "tier", "owner", "parent", "created") VALUES ('bob', NULL, 'gold', 'eve', 'ada', 1767268800000000);
CREATE TABLE alert (number INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, scope TEXT NOT NULL,
    period_start INTEGER NOT NULL, threshold INTEGER NOT NULL, used INTEGER NOT NULL, max INTEGER NOT NULL,
    raised_at INTEGER NOT NULL, UNIQUE (limit_id, scope, period_start, threshold)) STRICT;
INSERT INTO alert ("number", "limit_id", "scope", "period_start", "threshold", "used", "max", "raised_at") VALUES (1, 'l2', '', 1767193200000000, 50, 7000, 9000, 1767268801000000);
INSERT INTO alert ("number", "limit_id", "scope", "period_start", "threshold", "used", "max", "raised_at") VALUES (2, 'l3', 'ada', 1767268800000000, 50, 2, 4, 1767268801000000);
INSERT INTO alert ("number", "limit_id", "scope", "period_start", "threshold", "used", "max", "raised_at") VALUES (3, 'l1', '', 0, 50, 534, 1000, 1767268804000000);
INSERT INTO alert ("number", "limit_id", "scope", "period_start", "threshold", "used", "max", "raised_at") VALUES (4, 'l3', 'bob', 1767268800000000, 50, 2, 4, 1767268804000000);
CREATE TABLE audit (id INTEGER PRIMARY KEY, actor TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT, after TEXT, reason TEXT) STRICT;
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268800000000, 'operator', 'set_agent', 'agent bob', NULL, '{"agent_id": "bob", "name": null, "owner": "eve", "parent": "ada", "tier": "gold"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268800000001, 'operator', 'set_limit', 'tokens per total for everyone at api', NULL, '{"action": "reject", "created_at_us": 1767268800000001, "key": {"metric": "tokens", "service": "api", "subject": {"kind": "pool", "name": null}, "window": "total"}, "limit_id": "l1", "max": 1000, "thresholds": [50, 80, 100], "zone": "UTC"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268800000002, 'operator', 'set_limit', 'cost_usd per day for agent ada', NULL, '{"action": "reject", "created_at_us": 1767268800000002, "key": {"metric": "cost_usd", "service": null, "subject": {"kind": "agent", "name": "ada"}, "window": "day"}, "limit_id": "l2", "max": 9000, "thresholds": [50, 80, 100], "zone": "Asia/Tokyo"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268800000003, 'operator', 'set_limit', 'requests per 1h for agent *', NULL, '{"action": "reject", "created_at_us": 1767268800000003, "key": {"metric": "requests", "service": null, "subject": {"kind": "agent", "name": "*"}, "window": "1h"}, "limit_id": "l3", "max": 4, "thresholds": [50, 80, 100], "zone": "UTC"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268802000000, 'operator', 'engage_kill_switch', 'service bad', NULL, '{"engaged_at_us": 1767268802000000, "engaged_by": "operator", "kind": "service", "name": "bad", "reason": "it leaks"}', 'it leaks');
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268806000000, 'operator', 'create_key', 'key am_11111111', NULL, '{"bound_to": "ada", "created_at_us": 1767268806000000, "expires_at_us": null, "key_id": "k1", "last_used_us": null, "name": "Ada''s", "prefix": "am_11111111", "revoked_at_us": null, "role": "agent"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268806000001, 'operator', 'create_key', 'key am_22222222', NULL, '{"bound_to": null, "created_at_us": 1767268806000001, "expires_at_us": 3534537600000000, "key_id": "k2", "last_used_us": null, "name": null, "prefix": "am_22222222", "revoked_at_us": null, "role": "viewer"}', NULL);
INSERT INTO audit ("id", "actor", "action", "target", "before", "after", "reason") VALUES (1767268807000000, 'operator', 'revoke_key', 'key am_22222222', '{"bound_to": null, "created_at_us": 1767268806000001, "expires_at_us": 3534537600000000, "key_id": "k2", "last_used_us": null, "name": null, "prefix": "am_22222222", "revoked_at_us": null, "role": "viewer"}', '{"bound_to": null, "created_at_us": 1767268806000001, "expires_at_us": 3534537600000000, "key_id": "k2", "last_used_us": null, "name": null, "prefix": "am_22222222", "revoked_at_us": 1767268807000000, "role": "viewer"}', NULL);
CREATE TABLE cell (counter INTEGER NOT NULL, slot INTEGER NOT NULL, bucket INTEGER NOT NULL,
    used INTEGER NOT NULL, held INTEGER NOT NULL, PRIMARY KEY (counter, slot)) STRICT, WITHOUT ROWID;
INSERT INTO cell ("counter", "slot", "bucket", "used", "held") VALUES (4, 15, 29454479, 2, 0);
CREATE TABLE correction (id INTEGER PRIMARY KEY, event INTEGER NOT NULL REFERENCES event,
    at INTEGER NOT NULL,
    older TEXT NOT NULL) STRICT;
INSERT INTO correction ("id", "event", "at", "older") VALUES (1, 1767268801000000, 1767268802000000, '{"requests": 2, "units": 1500000, "input": 100, "output": 10, "cache_read": 300, "cache_write": 40, "cache_write_1h": 5, "cost": 7000}');
CREATE TABLE counter (id INTEGER PRIMARY KEY, limit_id TEXT NOT NULL, scope TEXT NOT NULL,
    first INTEGER,
    UNIQUE (limit_id, scope)) STRICT;
INSERT INTO counter ("id", "limit_id", "scope", "first") VALUES (1, 'l1', '', 1766664000000000);
INSERT INTO counter ("id", "limit_id", "scope", "first") VALUES (2, 'l2', '', NULL);
INSERT INTO counter ("id", "limit_id", "scope", "first") VALUES (3, 'l3', 'bob', NULL);
INSERT INTO counter ("id", "limit_id", "scope", "first") VALUES (4, 'l3', 'ada', NULL);
CREATE TABLE dim (id INTEGER PRIMARY KEY, service TEXT NOT NULL, agent TEXT NOT NULL,
    operation TEXT NOT NULL,
    model TEXT NOT NULL, project TEXT NOT NULL, session TEXT NOT NULL, source TEXT NOT NULL,
    unit_type TEXT NOT NULL, outcome TEXT NOT NULL,
    UNIQUE (agent, service, operation, model, project, session, source, unit_type, outcome)) STRICT;
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (1, 'api', 'ada', 'read', 'large', 'project', 'session', 'sdk', 'pages', 'accepted');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (2, 'api', 'bob', '', '', '', '', 'self', '', 'accepted');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (3, 'api', 'bob', '', '', '', '', 'import', '', 'accepted');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (4, 'api', 'bob', '', '', '', '', 'self', '', 'rejected');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (5, 'api', 'bob', '', '', '', '', '', '', 'rejected');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (6, 'api', 'ada', 'read', '', 'project', 'session', 'self', '', 'rejected');
INSERT INTO dim ("id", "service", "agent", "operation", "model", "project", "session", "source", "unit_type", "outcome") VALUES (7, 'api', 'ada', '', '', '', '', '', '', 'rejected');
CREATE TABLE event (id INTEGER PRIMARY KEY, key ANY NOT NULL,
    service INTEGER NOT NULL REFERENCES service,
    dim INTEGER NOT NULL REFERENCES dim, 
    requests INTEGER NOT NULL, units INTEGER, input INTEGER, output INTEGER, cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER, cost INTEGER, price INTEGER REFERENCES price, booked INTEGER,
    occurred INTEGER, status INTEGER, duration INTEGER, metadata TEXT) STRICT;
INSERT INTO event ("id", "key", "service", "dim", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "booked", "occurred", "status", "duration", "metadata") VALUES (1767268801000000, X'0198C0DE000070008000000000000001', 1, 1, 2, 1500000, 100, 20, 300, 40, 5, 7000, NULL, 1767268795000000, 1767268795000000, 200, 31, '{"a": [1, "🧮"]}');
INSERT INTO event ("id", "key", "service", "dim", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "booked", "occurred", "status", "duration", "metadata") VALUES (1767268801000001, 'plain text', 1, 2, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO event ("id", "key", "service", "dim", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "booked", "occurred", "status", "duration", "metadata") VALUES (1767268801000002, 'past', 1, 3, 1, NULL, 9, NULL, NULL, NULL, NULL, NULL, NULL, 1766664000000000, 1766664000000000, NULL, NULL, NULL);
INSERT INTO event ("id", "key", "service", "dim", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "booked", "occurred", "status", "duration", "metadata") VALUES (1767268804000000, 'settled', 1, 2, 1, NULL, 60, NULL, NULL, NULL, NULL, NULL, NULL, 1767268803000001, NULL, NULL, NULL, NULL);
CREATE TABLE head (counter INTEGER PRIMARY KEY, bucket INTEGER NOT NULL, used INTEGER NOT NULL,
    held INTEGER NOT NULL, version INTEGER NOT NULL) STRICT;
INSERT INTO head ("counter", "bucket", "used", "held", "version") VALUES (1, 0, 534, 50, 2);
INSERT INTO head ("counter", "bucket", "used", "held", "version") VALUES (2, 1767193200000000, 7000, 0, 0);
INSERT INTO head ("counter", "bucket", "used", "held", "version") VALUES (3, 29454480, 2, 1, 0);
CREATE TABLE key (key_id TEXT PRIMARY KEY, prefix TEXT NOT NULL UNIQUE, digest BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL, bound_to TEXT, name TEXT, created INTEGER NOT NULL, expires INTEGER, revoked INTEGER,
    last_used INTEGER) STRICT, WITHOUT ROWID;
INSERT INTO key ("key_id", "prefix", "digest", "role", "bound_to", "name", "created", "expires", "revoked", "last_used") VALUES ('k1', 'am_11111111', X'0101010101010101010101010101010101010101010101010101010101010101', 'agent', 'ada', 'Ada''s', 1767268806000000, NULL, NULL, 1767268800000000);
INSERT INTO key ("key_id", "prefix", "digest", "role", "bound_to", "name", "created", "expires", "revoked", "last_used") VALUES ('k2', 'am_22222222', X'0202020202020202020202020202020202020202020202020202020202020202', 'viewer', NULL, NULL, 1767268806000001, 3534537600000000, 1767268807000000, NULL);
CREATE TABLE meta (k TEXT PRIMARY KEY, v INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta ("k", "v") VALUES ('epoch', 6);
INSERT INTO meta ("k", "v") VALUES ('rolled', 0);
INSERT INTO meta ("k", "v") VALUES ('swept', 1767268801999999);
CREATE TABLE price (id INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE quota (limit_id TEXT PRIMARY KEY, subject TEXT NOT NULL, name TEXT NOT NULL,
    service TEXT NOT NULL,
    metric TEXT NOT NULL, window TEXT NOT NULL, max INTEGER NOT NULL, action TEXT NOT NULL,
    zone TEXT NOT NULL,
    thresholds TEXT NOT NULL, created INTEGER NOT NULL,
    UNIQUE (subject, name, service, metric, window)) STRICT;
INSERT INTO quota ("limit_id", "subject", "name", "service", "metric", "window", "max", "action", "zone", "thresholds", "created") VALUES ('l1', 'pool', '', 'api', 'tokens', 'total', 1000, 'reject', 'UTC', '50,80,100', 1767268800000001);
INSERT INTO quota ("limit_id", "subject", "name", "service", "metric", "window", "max", "action", "zone", "thresholds", "created") VALUES ('l2', 'agent', 'ada', '', 'cost_usd', 'day', 9000, 'reject', 'Asia/Tokyo', '50,80,100', 1767268800000002);
INSERT INTO quota ("limit_id", "subject", "name", "service", "metric", "window", "max", "action", "zone", "thresholds", "created") VALUES ('l3', 'agent', '*', '', 'requests', '1h', 4, 'reject', 'UTC', '50,80,100', 1767268800000003);
CREATE TABLE refusal (id INTEGER PRIMARY KEY, second INTEGER NOT NULL, agent TEXT NOT NULL,
    service TEXT NOT NULL, limit_id TEXT NOT NULL, dim INTEGER NOT NULL REFERENCES dim,
    count INTEGER NOT NULL,
    
    requests INTEGER NOT NULL, units INTEGER, input INTEGER, output INTEGER, cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER, cost INTEGER, price TEXT, UNIQUE (second, agent, service, limit_id)) STRICT;
INSERT INTO refusal ("id", "second", "agent", "service", "limit_id", "dim", "count", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price") VALUES (1767268805000000, 1767268805, 'bob', 'api', 'l1', 4, 1, 1, NULL, 5000, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO refusal ("id", "second", "agent", "service", "limit_id", "dim", "count", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price") VALUES (1767268805000001, 1767268800, 'ada', 'api', 'l1', 6, 3, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
CREATE TABLE reservation (id INTEGER PRIMARY KEY, reservation_id TEXT NOT NULL UNIQUE,
    key ANY NOT NULL,
    service TEXT NOT NULL, agent TEXT NOT NULL, project TEXT NOT NULL, session TEXT NOT NULL,
    operation TEXT NOT NULL, source TEXT NOT NULL, model TEXT NOT NULL, unit_type TEXT NOT NULL, 
    requests INTEGER NOT NULL, units INTEGER, input INTEGER, output INTEGER, cache_read INTEGER,
    cache_write INTEGER,
    cache_write_1h INTEGER, cost INTEGER,
    price TEXT, expires INTEGER NOT NULL, state INTEGER NOT NULL, UNIQUE (key, service)) STRICT;
INSERT INTO reservation ("id", "reservation_id", "key", "service", "agent", "project", "session", "operation", "source", "model", "unit_type", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "expires", "state") VALUES (1767268803000000, 'r1', 'held', 'api', 'bob', '', '', '', 'self', '', '', 1, NULL, 50, NULL, NULL, NULL, NULL, NULL, NULL, 1767272403000000, 0);
INSERT INTO reservation ("id", "reservation_id", "key", "service", "agent", "project", "session", "operation", "source", "model", "unit_type", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "expires", "state") VALUES (1767268803000001, 'r2', 'settled', 'api', 'bob', '', '', '', 'self', '', '', 1, NULL, 50, NULL, NULL, NULL, NULL, NULL, NULL, 1767268863000001, 1);
INSERT INTO reservation ("id", "reservation_id", "key", "service", "agent", "project", "session", "operation", "source", "model", "unit_type", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "price", "expires", "state") VALUES (1767268803000002, 'r3', 'released', 'api', 'bob', '', '', '', 'self', '', '', 1, NULL, 50, NULL, NULL, NULL, NULL, NULL, NULL, 1767268863000002, 2);
CREATE TABLE rollup (grain INTEGER NOT NULL, bucket INTEGER NOT NULL, dim INTEGER NOT NULL,
    n INTEGER NOT NULL,
    requests INTEGER NOT NULL, units INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
    cache_read INTEGER NOT NULL, cache_write INTEGER NOT NULL, cache_write_1h INTEGER NOT NULL,
    cost INTEGER NOT NULL, unpriced INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (grain, bucket, dim)) STRICT, WITHOUT ROWID;
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (0, 490908, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (0, 490908, 6, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (1, 20454, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (1, 20454, 6, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (2, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (2, 0, 6, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (3, 490908, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (3, 490908, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (4, 20454, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (4, 20454, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (5, 0, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000000);
INSERT INTO rollup ("grain", "bucket", "dim", "n", "requests", "units", "input", "output", "cache_read", "cache_write", "cache_write_1h", "cost", "unpriced", "last") VALUES (5, 0, 7, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1767268805000001);
CREATE TABLE service (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
INSERT INTO service ("id", "name") VALUES (1, 'api');
CREATE TABLE switch (kind TEXT NOT NULL, name TEXT NOT NULL, reason TEXT NOT NULL,
    engaged_by TEXT NOT NULL,
    engaged_at INTEGER NOT NULL, PRIMARY KEY (kind, name)) STRICT, WITHOUT ROWID;
INSERT INTO switch ("kind", "name", "reason", "engaged_by", "engaged_at") VALUES ('service', 'bad', 'it leaks', 'operator', 1767268802000000);
CREATE INDEX dim_project ON dim (project);
CREATE INDEX dim_session ON dim (session);
CREATE INDEX event_booked ON event (booked) WHERE booked IS NOT NULL;
CREATE UNIQUE INDEX event_key ON event (key, service);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX reservation_open ON reservation (expires) WHERE state = 0;
PRAGMA application_id=1095583060;
PRAGMA user_version=3;
PRAGMA journal_mode=WAL;
