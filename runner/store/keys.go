package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"time"
)

// Key is an API key as it is kept: the secret itself is not.
type Key struct {
	ID      string          `json:"id"`
	Hash    []byte          `json:"-"` // of the secret
	Grant   json.RawMessage `json:"grant"`
	Created time.Time       `json:"created"`
	Expires time.Time       `json:"expires,omitzero"`
	Revoked time.Time       `json:"revoked,omitzero"`
}

const keyColumns = "id, hash, grant_json, created_at, expires_at, revoked_at"

func scanKey(row interface{ Scan(...any) error }) (Key, error) {
	var k Key
	var created int64
	var expires, revoked sql.NullInt64
	var grant []byte
	err := row.Scan(&k.ID, &k.Hash, &grant, &created, &expires, &revoked)
	k.Grant, k.Created = grant, fromMicro(created)
	if expires.Valid {
		k.Expires = fromMicro(expires.Int64)
	}
	if revoked.Valid {
		k.Revoked = fromMicro(revoked.Int64)
	}
	return k, err
}

// AddKey stores a new key.
func (s *Store) AddKey(ctx context.Context, k Key, a Audit) error {
	return s.write(ctx, whatKey, func(tx *sql.Tx) error {
		var expires any
		if !k.Expires.IsZero() {
			expires = k.Expires.UnixMicro()
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO keys (id, hash, grant_json, created_at, expires_at) VALUES (?, ?, ?, ?, ?)",
			k.ID, k.Hash, []byte(k.Grant), s.now(), expires); err != nil {
			return err
		}
		return s.audit(ctx, tx, a)
	})
}

// RevokeKey ends a key for good; doing it again changes nothing.
func (s *Store) RevokeKey(ctx context.Context, id string, a Audit) error {
	return s.write(ctx, whatKey, func(tx *sql.Tx) error {
		if err := one(tx.ExecContext(ctx, "UPDATE keys SET revoked_at = COALESCE(revoked_at, ?) WHERE id = ?", s.now(), id)); err != nil {
			return err
		}
		return s.audit(ctx, tx, a)
	})
}

// Key returns one key.
func (s *Store) Key(ctx context.Context, id string) (Key, error) {
	k, err := scanKey(s.db.QueryRowContext(ctx, "SELECT "+keyColumns+" FROM keys WHERE id = ?", id))
	return k, s.readError("read key "+id, err)
}

// Keys returns all keys, oldest first.
func (s *Store) Keys(ctx context.Context) (_ []Key, err error) {
	rows, err := s.db.QueryContext(ctx, "SELECT "+keyColumns+" FROM keys ORDER BY created_at, id")
	if err != nil {
		return nil, s.readError("read keys", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []Key
	for rows.Next() {
		k, err := scanKey(rows)
		if err != nil {
			return nil, s.readError("read keys", err)
		}
		out = append(out, k)
	}
	return out, s.readError("read keys", rows.Err())
}

// Audit is one line of what was done by whom.
type Audit struct {
	Seq     int64     `json:"seq"`
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`             // id of a key, or "local"
	Action  string    `json:"action"`            // run.submit, run.approve, key.create, …
	Subject string    `json:"subject,omitempty"` // id of a run or a key
	Remote  string    `json:"remote,omitempty"`  // address that asked
	Detail  string    `json:"detail,omitempty"`
}

func (s *Store) audit(ctx context.Context, tx *sql.Tx, a Audit) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO audit (time, actor, action, subject, remote, detail) VALUES (?, ?, ?, ?, ?, ?)",
		s.now(), a.Actor, a.Action, a.Subject, a.Remote, a.Detail)
	return err
}

// Audit adds a line; nobody can change or remove it through this package.
func (s *Store) Audit(ctx context.Context, a Audit) error {
	return s.write(ctx, whatAudit, func(tx *sql.Tx) error { return s.audit(ctx, tx, a) })
}

// AuditLog returns the newest lines before a sequence number (0: the end),
// those about one subject when it is not empty.
func (s *Store) AuditLog(ctx context.Context, subject string, before int64, limit int) (_ []Audit, err error) {
	if limit <= 0 {
		limit = 100
	}
	if before <= 0 {
		before = math.MaxInt64
	}
	q, args := "SELECT seq, time, actor, action, subject, remote, detail FROM audit WHERE seq < ?", []any{before}
	if subject != "" {
		q, args = q+" AND subject = ?", append(args, subject)
	}
	rows, err := s.db.QueryContext(ctx, q+" ORDER BY seq DESC LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, s.readError("read audit log", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var out []Audit
	for rows.Next() {
		var a Audit
		var t int64
		if err := rows.Scan(&a.Seq, &t, &a.Actor, &a.Action, &a.Subject, &a.Remote, &a.Detail); err != nil {
			return nil, s.readError("read audit log", err)
		}
		a.Time = fromMicro(t)
		out = append(out, a)
	}
	return out, s.readError("read audit log", rows.Err())
}
