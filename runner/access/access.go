// Package access says who may do what to a server: API keys with what they are
// granted, how often they may ask, and how many GPU-hours their runs may take.
//
// A key is "rpm_" + id + "_" + secret. The id is public and names the key in
// lists and logs; of the secret only its SHA-256 is kept, which is enough for
// 256 random bits. Comparison takes the same time whatever was given.
package access

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/runner/store"
)

// Prefix begins every key, so that scanners for leaked secrets recognise one.
const Prefix = "rpm_"

// The scopes of a key. Admin implies the others.
const (
	Read    = "read"
	Submit  = "submit"
	Approve = "approve"
	Admin   = "admin"
)

// Scopes lists the scopes there are.
func Scopes() []string { return []string{Read, Submit, Approve, Admin} }

// Grant is what a key may do. Zero numbers are no bound, no queue is all.
type Grant struct {
	Name              string   `json:"name"`
	Scopes            []string `json:"scopes"`
	Queues            []string `json:"queues,omitempty"`
	MaxGPUHours       float64  `json:"max_gpu_hours,omitempty"` // of one run
	MaxUSD            float64  `json:"max_usd,omitempty"`       // of one run
	GPUHoursPerDay    float64  `json:"gpu_hours_per_day,omitempty"`
	RequestsPerMinute int      `json:"requests_per_minute,omitempty"`
}

// Identity is who asks.
type Identity struct {
	ID string // of the key; "local" without one
	Grant
	Expires time.Time
}

// Local is who asks a server on loopback that demands no key.
func Local() Identity {
	return Identity{ID: "local", Grant: Grant{Name: "local", Scopes: []string{Admin}}}
}

// May reports whether a scope is granted.
func (i Identity) May(scope string) bool {
	return slices.Contains(i.Scopes, scope) || slices.Contains(i.Scopes, Admin) || (scope == Read && len(i.Scopes) > 0)
}

// Queue reports whether runs may be submitted to the queue.
func (i Identity) Queue(name string) bool {
	return len(i.Queues) == 0 || slices.Contains(i.Queues, name)
}

// Error is a mistake in a grant; the message says how to mend it.
type Error struct{ Problem, Fix string }

func (e *Error) Error() string { return e.Problem }

// UserError returns the fix.
func (e *Error) UserError() string { return e.Fix }

// Check refuses a grant that cannot be meant.
func (g Grant) Check() error {
	if g.Name == "" || len(g.Name) > 64 || strings.ContainsFunc(g.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return &Error{"a key needs a name of at most 64 characters", "name whoever holds it with --name"}
	}
	if len(g.Scopes) == 0 {
		return &Error{"the key may do nothing", "give --scope with some of " + strings.Join(Scopes(), ", ")}
	}
	for _, s := range g.Scopes {
		if !slices.Contains(Scopes(), s) {
			return &Error{fmt.Sprintf("there is no scope %q", s), "scopes are " + strings.Join(Scopes(), ", ")}
		}
	}
	if g.MaxGPUHours < 0 || g.MaxUSD < 0 || g.GPUHoursPerDay < 0 || g.RequestsPerMinute < 0 {
		return &Error{"a limit cannot be negative", "give a positive number, or leave the limit out"}
	}
	return nil
}

var alphabet = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// New makes a key and stores it. The returned token is the only copy of the
// secret there will ever be. expires may be zero.
func New(ctx context.Context, st *store.Store, rand io.Reader, g Grant, expires time.Time, a store.Audit) (token string, k store.Key, err error) {
	if err := g.Check(); err != nil {
		return "", k, err
	}
	var raw [37]byte
	if _, err := io.ReadFull(rand, raw[:]); err != nil {
		return "", k, fmt.Errorf("make key: %w", err)
	}
	id, secret := alphabet.EncodeToString(raw[:5]), alphabet.EncodeToString(raw[5:])
	body, err := json.Marshal(g)
	if err != nil {
		return "", k, fmt.Errorf("make key: %w", err)
	}
	k = store.Key{ID: id, Hash: sum(secret), Grant: body, Expires: expires}
	a.Action, a.Subject, a.Detail = "key.create", id, string(body)
	return Prefix + id + "_" + secret, k, st.AddKey(ctx, k, a)
}

func sum(secret string) []byte {
	h := sha256.Sum256([]byte(secret))
	return h[:]
}

// ErrDenied says that a token gives no access; it does not say why, which is
// for the audit log.
var ErrDenied = errors.New("the key is not valid")

// split takes a token apart; ok is false for what cannot be one.
func split(token string) (id, secret string, ok bool) {
	rest, ok := strings.CutPrefix(token, Prefix)
	if !ok || len(rest) > 80 {
		return "", "", false
	}
	id, secret, ok = strings.Cut(rest, "_")
	return id, secret, ok && len(id) == 8 && len(secret) == 52
}

// Check returns who holds a token. Its error is ErrDenied for one that is
// malformed, unknown, expired or revoked, with the reason joined to it.
func Check(ctx context.Context, st *store.Store, token string, now time.Time) (Identity, error) {
	id, secret, ok := split(token)
	if !ok {
		return Identity{}, fmt.Errorf("%w: it is malformed", ErrDenied)
	}
	k, err := st.Key(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Identity{}, err
	}
	if subtle.ConstantTimeCompare(k.Hash, sum(secret)) != 1 {
		return Identity{}, fmt.Errorf("%w: it is unknown", ErrDenied)
	}
	return Of(k, now)
}

// Of returns who holds a stored key, unless it has ended.
func Of(k store.Key, now time.Time) (Identity, error) {
	switch {
	case !k.Revoked.IsZero():
		return Identity{}, fmt.Errorf("%w: it was revoked", ErrDenied)
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return Identity{}, fmt.Errorf("%w: it has expired", ErrDenied)
	}
	out := Identity{ID: k.ID, Expires: k.Expires}
	if err := json.Unmarshal(k.Grant, &out.Grant); err != nil {
		return Identity{}, fmt.Errorf("read grant of key %s: %w", k.ID, err)
	}
	return out, nil
}
