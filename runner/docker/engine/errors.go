package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/client"
)

var (
	// ErrNotFound is a container or image that the engine does not have.
	ErrNotFound = errors.New("not found")
	// ErrConflict is a name that is taken, or a state that forbids the call.
	ErrConflict = errors.New("conflict")
)

// UnavailableError says that no engine answers, why, and what to do.
type UnavailableError struct{ Host, Why, Fix string }

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("no Docker engine at %s: %s; %s", e.Host, e.Why, e.Fix)
}

// UserError returns what to do.
func (e *UnavailableError) UserError() string { return e.Fix }

// DiskFullError says that the engine ran out of room.
type DiskFullError struct{ Msg string }

func (e *DiskFullError) Error() string {
	return "the engine's disk is full: " + e.Msg + "; " + e.UserError()
}

// UserError returns what to do.
func (e *DiskFullError) UserError() string {
	return "make room with `repromill cache prune --keep SIZE` or `docker system prune`, and run again"
}

// RegistryError says that an image could not be pulled or pushed.
type RegistryError struct {
	Ref  string
	Kind RegistryProblem
	Msg  string // the engine's own words
}

// RegistryProblem is a kind of trouble with a registry.
type RegistryProblem string

// The kinds of trouble. Only Unreachable and Limited may pass by themselves.
const (
	Missing     RegistryProblem = "missing"
	Denied      RegistryProblem = "denied"
	Limited     RegistryProblem = "rate_limited"
	Unreachable RegistryProblem = "unreachable"
)

func (e *RegistryError) Error() string {
	what := map[RegistryProblem]string{
		Missing: "does not exist", Denied: "is refused by its registry", Limited: "is refused for now: too many requests", Unreachable: "could not be moved: its registry did not answer or dropped the connection",
	}[e.Kind]
	return fmt.Sprintf("image %s %s (%s); %s", e.Ref, what, e.Msg, e.UserError())
}

// UserError returns what to do.
func (e *RegistryError) UserError() string {
	switch e.Kind {
	case Missing:
		return "correct the name or the tag of the image"
	case Denied:
		return "correct the name of the image, or log in with `docker login`"
	case Limited:
		return "wait, or log in with `docker login`"
	}
	return "check the network and the registry, and run again: what has arrived is kept"
}

// Temporary reports whether the same call may work later.
func (e *RegistryError) Temporary() bool { return e.Kind == Unreachable || e.Kind == Limited }

// wrap turns the client's errors into this package's.
func (e *Engine) wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case client.IsErrConnectionFailed(err), isConnection(err):
		return e.unavailable(err)
	case strings.Contains(err.Error(), "no space left on device"), strings.Contains(err.Error(), "disk quota exceeded"):
		return &DiskFullError{err.Error()}
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w: %v", doing, ErrNotFound, err)
	case errdefs.IsConflict(err), errdefs.IsNotModified(err):
		return fmt.Errorf("%s: %w: %v", doing, ErrConflict, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func isConnection(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (op.Op == "dial" || errors.Is(err, syscall.ECONNREFUSED))
}

// unavailable finds out why nobody answers. The client's own error says little
// more than that.
func (e *Engine) unavailable(err error) error {
	out := &UnavailableError{Host: e.host, Why: firstLine(err.Error()), Fix: "start the engine, or correct DOCKER_HOST"}
	path, ok := strings.CutPrefix(e.host, "unix://")
	if !ok {
		return out
	}
	conn, derr := net.DialTimeout("unix", path, time.Second)
	if derr == nil {
		conn.Close()
		return out
	}
	switch {
	case errors.Is(derr, fs.ErrPermission):
		out.Why = "this user may not use its socket"
		out.Fix = "run `sudo usermod -aG docker " + userName() + "` and log in again (members of that group can become root), or use rootless Docker"
	case errors.Is(derr, fs.ErrNotExist):
		out.Why = "its socket does not exist, so no engine is installed or it is not running"
		out.Fix = "install it with `sudo apt-get install docker.io` (or your system's package) and start it with `sudo systemctl start docker`, or use another executor"
	case errors.Is(derr, syscall.ECONNREFUSED):
		out.Why = "its socket is there, and nobody listens"
		out.Fix = "start the engine with `sudo systemctl start docker`"
	}
	return out
}

func userName() string {
	if u := os.Getenv("USER"); u != "" {
		return u
	}
	return "$USER"
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// registryError sorts what an engine says of a failed pull or push. The words
// are those of the distribution client and of Go's network library.
func registryError(ref, msg string) error {
	low := strings.ToLower(msg)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(low, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("no space left on device", "disk quota exceeded"):
		return &DiskFullError{msg}
	case has("toomanyrequests", "too many requests", "rate limit"):
		return &RegistryError{ref, Limited, msg}
	case has("manifest unknown", "manifest for", "name unknown", "repository name not known", "not found"):
		return &RegistryError{ref, Missing, msg}
	case has("unauthorized", "denied", "forbidden", "authentication required", "no basic auth"):
		return &RegistryError{ref, Denied, msg}
	case has("eof", "connection reset", "connection refused", "timeout", "no such host", "no route", "tls", "x509", "server misbehaving", "dial tcp", "unreachable", "broken pipe", "context deadline", "internal server error", "bad gateway", "service unavailable", "http: server gave"):
		return &RegistryError{ref, Unreachable, msg}
	}
	return fmt.Errorf("move image %s: %s", ref, msg)
}
