package pipeline

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/intake"
)

// Error is a mistake in the input, with the fix.
type Error struct{ Msg, Fix string }

func (e *Error) Error() string { return e.Msg + "; " + e.Fix }

// UserError returns the fix.
func (e *Error) UserError() string { return e.Fix }

// outside gives the failure of a site or of the network its remedy. Neither is
// ours, and only the user can wait, mend the network or go without it.
func outside(ctx context.Context, err error) error {
	var (
		user      interface{ UserError() string }
		throttled *intake.ThrottledError
		answer    *intake.AnswerError
		status    *fetch.StatusError
		large     *fetch.TooLargeError
		timeout   *fetch.TimeoutError
		dns       *net.DNSError
		op        *net.OpError
	)
	fix := ""
	switch {
	case err == nil || ctx.Err() != nil || errors.As(err, &user):
		return err
	case errors.As(err, &throttled):
		fix = "wait some minutes and give the same command again; what was read is kept"
	case errors.As(err, &answer), errors.As(err, &status), errors.As(err, &large):
		fix = "the site is at fault: try again later, or work from a filled mirror with --mirror DIR"
	case errors.As(err, &timeout), errors.As(err, &dns), errors.As(err, &op), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		fix = "check the network and try again, or work from a filled mirror with --mirror DIR"
	default:
		return err
	}
	return &outsideError{err, fix}
}

type outsideError struct {
	err error
	fix string
}

func (e *outsideError) Error() string     { return e.err.Error() }
func (e *outsideError) Unwrap() error     { return e.err }
func (e *outsideError) UserError() string { return e.fix }
