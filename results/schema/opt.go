package schema

import "encoding/json"

// Opt is a value that may be absent. Its zero value is NULL.
type Opt[T int64 | float64 | bool] struct {
	V     T
	Valid bool
}

// Some is a value that is there.
func Some[T int64 | float64 | bool](v T) Opt[T] { return Opt[T]{v, true} }

// Float is a double that is there. A NaN is stored as NULL.
func Float(v float64) Opt[float64] { return Some(v) }

// Int is an integer that is there.
func Int[N ~int | ~int32 | ~int64](v N) Opt[int64] { return Some(int64(v)) }

// Bool is a truth value that is there.
func Bool(v bool) Opt[bool] { return Some(v) }

// FromPtr is the value p points at, or NULL.
func FromPtr[T int64 | float64 | bool](p *T) Opt[T] {
	if p == nil {
		return Opt[T]{}
	}
	return Some(*p)
}

// Ptr is a pointer to a copy of the value, nil for NULL.
func (o Opt[T]) Ptr() *T {
	if !o.Valid {
		return nil
	}
	return &o.V
}

// Or is the value, or def for NULL.
func (o Opt[T]) Or(def T) T {
	if !o.Valid {
		return def
	}
	return o.V
}

// IsZero reports whether the value is NULL, so that omitzero drops it.
func (o Opt[T]) IsZero() bool { return !o.Valid }

// MarshalJSON writes null for NULL.
func (o Opt[T]) MarshalJSON() ([]byte, error) {
	if !o.Valid {
		return []byte("null"), nil
	}
	return json.Marshal(o.V)
}

// UnmarshalJSON reads null as NULL.
func (o *Opt[T]) UnmarshalJSON(b []byte) error {
	var p *T
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	*o = FromPtr(p)
	return nil
}
