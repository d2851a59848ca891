/**
 * The tables, and the functions that do in one round trip what must be one transaction.
 *
 * Texts are bytea: ids may hold U+0000, which text cannot, and their order must not depend on a collation. Those that are
 * indexed are keys of `texts.ts`, so that no id is too long for an index. Every function first locks the channels it writes
 * to, in the order of their numbers, so that engines never wait for each other in a circle. It looks at messages in a later
 * statement, whose snapshot has what others committed before they let go of the lock.
 */

/** What the wire has room for; a channel's standing may not go beyond it. */
const MAX_SEQ = 4_294_967_295

/** Raised when a channel that was known is not there any more: the database is another one than before. */
export const CHANNEL_LOST = 'IM001'

/**
 * What leads from each version of the schema to the next one: a statement list per version, to be extended and never
 * changed. `s` is the quoted name of the schema.
 */
export const MIGRATIONS: readonly ((s: string) => string)[] = [
  (s) => `
CREATE TABLE ${s}.long_texts (text_key bytea PRIMARY KEY, text bytea NOT NULL);

-- no is random: should the database be set back, a number that an engine remembers is missing, and not somebody else's.
CREATE TABLE ${s}.channels (
  no bigint PRIMARY KEY,
  channel_type smallint NOT NULL,
  channel_key bytea NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0 CONSTRAINT channel_is_full CHECK (last_seq <= ${MAX_SEQ}),
  floor_seq bigint NOT NULL DEFAULT 0,
  last_ms bigint NOT NULL DEFAULT 0,
  -- no message up to here is recognised by its client number any more
  number_floor bigint NOT NULL DEFAULT 0,
  UNIQUE (channel_type, channel_key)
) WITH (fillfactor = 70);

CREATE TABLE ${s}.messages (
  channel_no bigint NOT NULL,
  seq bigint NOT NULL,
  message_id bigint NOT NULL,
  sent_ms bigint NOT NULL,
  expires_ms bigint,
  repeat_key uuid,
  bits integer NOT NULL,
  from_key bytea NOT NULL,
  client_msg_no bytea NOT NULL,
  topic bytea NOT NULL,
  payload bytea NOT NULL,
  revision_kind smallint,
  revision_version integer,
  revised_by bytea,
  revised_ms bigint,
  first_digest bytea,
  PRIMARY KEY (channel_no, seq)
);
CREATE UNIQUE INDEX messages_repeat ON ${s}.messages (channel_no, repeat_key) WHERE repeat_key IS NOT NULL;
CREATE INDEX messages_id ON ${s}.messages (message_id);
CREATE INDEX messages_expiry ON ${s}.messages (expires_ms) WHERE expires_ms IS NOT NULL;

-- Recalled, or removed from the middle: what does not count above the floor.
CREATE TABLE ${s}.holes (channel_no bigint, seq bigint, PRIMARY KEY (channel_no, seq));
CREATE TABLE ${s}.senders (channel_no bigint, uid_key bytea, last_seq bigint NOT NULL, PRIMARY KEY (channel_no, uid_key)) WITH (fillfactor = 70);
CREATE TABLE ${s}.person_channels (uid_key bytea, channel_key bytea, PRIMARY KEY (uid_key, channel_key));

CREATE TABLE ${s}.channel_infos (
  channel_type smallint,
  channel_key bytea,
  ban boolean NOT NULL,
  disband boolean NOT NULL,
  send_ban boolean NOT NULL,
  allow_stranger boolean NOT NULL,
  mode smallint NOT NULL,
  PRIMARY KEY (channel_type, channel_key)
);
CREATE TABLE ${s}.members (
  channel_type smallint,
  channel_key bytea,
  uid_key bytea,
  role smallint NOT NULL,
  muted_until_ms bigint,
  PRIMARY KEY (channel_type, channel_key, uid_key)
);
CREATE INDEX members_uid ON ${s}.members (uid_key, channel_type, channel_key);
CREATE TABLE ${s}.listed (
  channel_type smallint,
  channel_key bytea,
  list smallint,
  uid_key bytea,
  PRIMARY KEY (channel_type, channel_key, list, uid_key)
);
CREATE TABLE ${s}.users (
  uid_key bytea PRIMARY KEY,
  banned boolean NOT NULL,
  send_banned boolean NOT NULL,
  system boolean NOT NULL
);
CREATE INDEX users_system ON ${s}.users (uid_key) WHERE system;

-- set_mask is of the last write alone: it tells ON CONFLICT which positions are set, and which only raised.
CREATE TABLE ${s}.cursors (
  uid_key bytea,
  channel_type smallint,
  channel_key bytea,
  delivered_seq bigint NOT NULL,
  read_seq bigint NOT NULL,
  join_seq bigint NOT NULL,
  deleted_to_seq bigint NOT NULL,
  unread_mark_seq bigint NOT NULL,
  set_mask smallint NOT NULL,
  PRIMARY KEY (uid_key, channel_type, channel_key)
) WITH (fillfactor = 70);
CREATE TABLE ${s}.hidden (
  uid_key bytea,
  channel_type smallint,
  channel_key bytea,
  seq bigint,
  PRIMARY KEY (uid_key, channel_type, channel_key, seq)
);
CREATE TABLE ${s}.tokens (
  uid_key bytea,
  device_flag smallint,
  digest bytea NOT NULL,
  device_level smallint NOT NULL,
  PRIMARY KEY (uid_key, device_flag)
);

CREATE SEQUENCE ${s}.outbox_ids;
CREATE TABLE ${s}.outbox (
  instance bytea,
  lane smallint,
  entry_id bigint,
  bytes bytea NOT NULL,
  PRIMARY KEY (instance, lane, entry_id)
);

-- Append to the channels nos, which ascend. By message: at is its channel's place in nos, the five counts are lengths of
-- what stands for it in content. Answers with the repeats, under their place among the messages, and with where each channel
-- stood before, under its place in nos, negative.
CREATE FUNCTION ${s}.append(
  nos bigint[], at integer[], ids bigint[], sent bigint[], expires bigint[], repeats uuid[], all_bits integer[],
  offsets integer[], from_bytes integer[], no_bytes integer[], topic_bytes integer[], payload_bytes integer[], content bytea,
  person_uids bytea[], person_keys bytea[]
) RETURNS TABLE (place integer, old_seq bigint, old_id bigint, digest bytea)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
DECLARE
  bases bigint[];
  known integer[] := '{}';
BEGIN
  SELECT array_agg(l.last_seq ORDER BY l.no) INTO bases
    FROM (SELECT c.no, c.last_seq FROM ${s}.channels c WHERE c.no = ANY (nos) ORDER BY c.no FOR NO KEY UPDATE) l;
  IF bases IS NULL OR array_length(bases, 1) <> array_length(nos, 1) THEN
    RAISE EXCEPTION 'a channel is not there any more' USING ERRCODE = '${CHANNEL_LOST}';
  END IF;

  RETURN QUERY
    SELECT g.ord::integer, m.seq, m.message_id, coalesce(m.first_digest, sha256(m.payload))
      FROM unnest(at, repeats) WITH ORDINALITY g (at, repeat_key, ord)
      JOIN ${s}.messages m ON m.channel_no = nos[g.at] AND m.repeat_key = g.repeat_key;
  IF FOUND THEN
    known := array(
      SELECT g.ord::integer
        FROM unnest(at, repeats) WITH ORDINALITY g (at, repeat_key, ord)
        JOIN ${s}.messages m ON m.channel_no = nos[g.at] AND m.repeat_key = g.repeat_key);
  END IF;

  WITH fresh AS (
    INSERT INTO ${s}.messages (channel_no, seq, message_id, sent_ms, expires_ms, repeat_key, bits, from_key, client_msg_no, topic, payload)
      SELECT nos[g.at], bases[g.at] + row_number() OVER (PARTITION BY g.at ORDER BY g.ord), g.id, g.sent_ms, g.expires_ms, g.repeat_key, g.bits,
          substr(content, g.start, g.f), substr(content, g.start + g.f, g.n), substr(content, g.start + g.f + g.n, g.t),
          substr(content, g.start + g.f + g.n + g.t, g.p)
        FROM unnest(at, ids, sent, expires, repeats, all_bits, offsets, from_bytes, no_bytes, topic_bytes, payload_bytes)
          WITH ORDINALITY g (at, id, sent_ms, expires_ms, repeat_key, bits, start, f, n, t, p, ord)
        WHERE g.ord <> ALL (known)
      RETURNING channel_no, seq, from_key, sent_ms
  ), moved AS (
    UPDATE ${s}.channels c SET last_seq = l.seq, last_ms = l.sent_ms
      FROM (SELECT DISTINCT ON (f.channel_no) f.channel_no, f.seq, f.sent_ms FROM fresh f ORDER BY f.channel_no, f.seq DESC) l
      WHERE c.no = l.channel_no
  )
  INSERT INTO ${s}.senders AS w (channel_no, uid_key, last_seq)
    SELECT f.channel_no, f.from_key, max(f.seq) FROM fresh f GROUP BY f.channel_no, f.from_key
    ON CONFLICT (channel_no, uid_key) DO UPDATE SET last_seq = EXCLUDED.last_seq;

  IF array_length(person_uids, 1) > 0 THEN
    INSERT INTO ${s}.person_channels (uid_key, channel_key)
      SELECT DISTINCT g.u, g.k FROM unnest(person_uids, person_keys) g (u, k) ORDER BY g.u, g.k
      ON CONFLICT DO NOTHING;
  END IF;

  RETURN QUERY SELECT -i, bases[i], NULL::bigint, NULL::bytea FROM generate_subscripts(bases, 1) i;
END $$;

-- Behind a removal: raise the floors of these channels, which are locked, to what stands before their first message.
CREATE FUNCTION ${s}.raise_floors(nos bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE ${s}.channels c SET floor_seq = f.floor
    FROM (SELECT a.no, coalesce((SELECT m.seq FROM ${s}.messages m WHERE m.channel_no = a.no ORDER BY m.seq LIMIT 1) - 1, a.last_seq) AS floor
            FROM ${s}.channels a WHERE a.no = ANY (nos)) f
    WHERE c.no = f.no AND f.floor > c.floor_seq;
  DELETE FROM ${s}.holes h USING ${s}.channels c WHERE c.no = ANY (nos) AND h.channel_no = c.no AND h.seq <= c.floor_seq;
END $$;

-- Remove single messages, of whichever channels. Answers with how many there were.
CREATE FUNCTION ${s}.remove_messages(nos bigint[], seqs bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  gone_count integer;
BEGIN
  PERFORM 1 FROM ${s}.channels c WHERE c.no = ANY (nos) ORDER BY c.no FOR NO KEY UPDATE;
  WITH gone AS (
    DELETE FROM ${s}.messages m USING unnest(nos, seqs) g (no, seq) WHERE m.channel_no = g.no AND m.seq = g.seq
      RETURNING m.channel_no, m.seq
  ), holes AS (
    INSERT INTO ${s}.holes (channel_no, seq) SELECT channel_no, seq FROM gone ON CONFLICT DO NOTHING
  )
  SELECT count(*) INTO gone_count FROM gone;
  PERFORM ${s}.raise_floors(nos);
  RETURN gone_count;
END $$;

-- Remove from the front of a channel, at most max_count: what is at or below through_seq, and what is older than before_ms
-- with nothing younger in front of it.
CREATE FUNCTION ${s}.remove_front(channel_no_ bigint, through_seq bigint, before_ms bigint, max_count integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  young_seq bigint;
  front_seq bigint;
  gone_count integer;
BEGIN
  PERFORM 1 FROM ${s}.channels c WHERE c.no = channel_no_ FOR NO KEY UPDATE;
  SELECT max(f.seq), min(f.seq) FILTER (WHERE f.sent_ms >= before_ms) INTO front_seq, young_seq
    FROM (SELECT m.seq, m.sent_ms FROM ${s}.messages m WHERE m.channel_no = channel_no_ ORDER BY m.seq LIMIT max_count) f;
  DELETE FROM ${s}.messages m
    WHERE m.channel_no = channel_no_ AND m.seq <= least(front_seq, greatest(through_seq, coalesce(young_seq - 1, front_seq)));
  GET DIAGNOSTICS gone_count = ROW_COUNT;
  PERFORM ${s}.raise_floors(ARRAY[channel_no_]);
  RETURN gone_count;
END $$;

-- Forget the client numbers of messages that are older than before_ms with nothing younger in front of them, of at most
-- max_count messages. Answers with how many it has gone through.
CREATE FUNCTION ${s}.forget_numbers(channel_no_ bigint, before_ms bigint, max_count integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  floor_ bigint;
  last_ bigint;
  seen_count integer;
BEGIN
  SELECT c.number_floor INTO floor_ FROM ${s}.channels c WHERE c.no = channel_no_ FOR NO KEY UPDATE;
  SELECT coalesce(min(f.seq) FILTER (WHERE f.sent_ms >= before_ms) - 1, max(f.seq)), count(*) FILTER (WHERE f.sent_ms < before_ms)
    INTO last_, seen_count
    FROM (SELECT m.seq, m.sent_ms FROM ${s}.messages m WHERE m.channel_no = channel_no_ AND m.seq > floor_ ORDER BY m.seq LIMIT max_count) f;
  IF last_ IS NULL OR last_ <= floor_ THEN
    RETURN 0;
  END IF;
  UPDATE ${s}.messages m SET repeat_key = NULL
    WHERE m.channel_no = channel_no_ AND m.seq > floor_ AND m.seq <= last_ AND m.repeat_key IS NOT NULL;
  UPDATE ${s}.channels c SET number_floor = last_ WHERE c.no = channel_no_;
  RETURN seen_count;
END $$;

-- Edit (kind 0) or recall (kind 1) a message, unless it has been recalled. Answers with the message as it is from now on,
-- all NULL when there is none.
CREATE FUNCTION ${s}.revise(channel_no_ bigint, seq_ bigint, kind smallint, by_uid bytea, at_ms bigint, new_payload bytea, now_ms bigint)
RETURNS ${s}.messages LANGUAGE plpgsql AS $$
DECLARE
  changed ${s}.messages;
BEGIN
  PERFORM 1 FROM ${s}.channels c WHERE c.no = channel_no_ FOR NO KEY UPDATE;
  UPDATE ${s}.messages m
    SET payload = new_payload, revision_kind = kind, revision_version = coalesce(m.revision_version, 0) + 1,
        revised_by = by_uid, revised_ms = at_ms, first_digest = coalesce(m.first_digest, sha256(m.payload))
    WHERE m.channel_no = channel_no_ AND m.seq = seq_ AND m.revision_kind IS DISTINCT FROM 1
      AND (m.expires_ms IS NULL OR m.expires_ms > now_ms)
    RETURNING m.* INTO changed;
  IF NOT FOUND THEN
    SELECT m.* INTO changed FROM ${s}.messages m
      WHERE m.channel_no = channel_no_ AND m.seq = seq_ AND (m.expires_ms IS NULL OR m.expires_ms > now_ms);
  ELSIF kind = 1 THEN
    INSERT INTO ${s}.holes (channel_no, seq) VALUES (channel_no_, seq_) ON CONFLICT DO NOTHING;
  END IF;
  RETURN changed;
END $$;
`,
]

/** The version this code reads and writes. */
export const SCHEMA_VERSION = MIGRATIONS.length
