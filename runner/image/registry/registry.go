// Package registry is the way to container registries: names to digests, and
// images there and back, over connections that drop.
//
// The protocol is the OCI distribution specification, spoken by
// go-containerregistry. Blobs are pushed before the manifest that names them,
// so that an interrupted push leaves nothing that can be pulled.
package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Config says how registries are reached. The zero value uses the logins of
// the Docker configuration (DOCKER_CONFIG or ~/.docker/config.json) and its
// credential helpers.
type Config struct {
	Keychain  authn.Keychain    // nil: authn.DefaultKeychain
	Transport http.RoundTripper // nil: http.DefaultTransport, with its proxy settings
	// PlainHTTP are hosts ("host:port") spoken to without TLS. Loopback
	// addresses and *.local need no entry.
	PlainHTTP []string
	Platform  v1.Platform   // zero: linux/amd64
	Tries     int           // of a whole operation; 0 means 4
	Backoff   time.Duration // before the second try, doubled each time; 0 means 500 ms
	UserAgent string
}

// Client speaks to registries.
type Client struct{ cfg Config }

// New returns a client.
func New(cfg Config) *Client {
	if cfg.Keychain == nil {
		cfg.Keychain = authn.DefaultKeychain
	}
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
	}
	if cfg.Platform.Architecture == "" {
		cfg.Platform = v1.Platform{OS: "linux", Architecture: "amd64"}
	}
	if cfg.Tries == 0 {
		cfg.Tries = 4
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = 500 * time.Millisecond
	}
	return &Client{cfg}
}

// Error is an operation on a registry that did not work, with what to do.
type Error struct {
	Op, Ref string
	Fix     string
	Err     error
}

func (e *Error) Error() string { return e.Op + " " + e.Ref + ": " + e.Err.Error() }

// Unwrap gives the registry's own words.
func (e *Error) Unwrap() error { return e.Err }

// UserError is the remedy.
func (e *Error) UserError() string { return e.Fix }

// Parse reads the name of an image as Docker does: "python:3.11-slim" is
// docker.io/library/python:3.11-slim.
func (c *Client) Parse(ref string) (name.Reference, error) {
	var opts []name.Option
	host, _, _ := strings.Cut(ref, "/")
	if slices.Contains(c.cfg.PlainHTTP, host) {
		opts = append(opts, name.Insecure)
	}
	r, err := name.ParseReference(ref, opts...)
	if err != nil || strings.Contains(ref, "..") {
		return nil, &Error{"read", ref, "write HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST", errors.New("it is no name of an image")}
	}
	return r, nil
}

// Resolve pins a name: the digest of the image for the client's platform.
// A name with a digest of an image is returned as it is.
func (c *Client) Resolve(ctx context.Context, ref string) (name.Digest, error) {
	img, err := c.Image(ctx, ref)
	if err != nil {
		return name.Digest{}, err
	}
	r, err := c.Parse(ref)
	if err != nil {
		return name.Digest{}, err
	}
	h, err := img.Digest()
	if err != nil {
		return name.Digest{}, fmt.Errorf("resolve %s: %w", ref, err)
	}
	return r.Context().Digest(h.String()), nil
}

// Image opens an image: its manifest is read and verified now, its layers when
// they are asked for.
func (c *Client) Image(ctx context.Context, ref string) (img v1.Image, err error) {
	r, err := c.Parse(ref)
	if err != nil {
		return nil, err
	}
	err = c.retry(ctx, func() error {
		img, err = remote.Image(r, c.options(ctx)...)
		if err != nil {
			return err
		}
		_, err = img.RawConfigFile()
		return err
	})
	return img, c.explain("pull", r, err)
}

// Digest is the digest that a name has now; ok is false when there is no such
// image.
func (c *Client) Digest(ctx context.Context, ref string) (h v1.Hash, ok bool, err error) {
	r, err := c.Parse(ref)
	if err != nil {
		return v1.Hash{}, false, err
	}
	err = c.retry(ctx, func() error {
		d, err := remote.Head(r, c.options(ctx)...)
		if err == nil {
			h = d.Digest
		}
		return err
	})
	if status(err) == http.StatusNotFound {
		return v1.Hash{}, false, nil
	}
	return h, err == nil, c.explain("look for", r, err)
}

// Push uploads an image and returns its name by digest. Blobs that the
// registry has are not sent again, so that a second try goes on where the
// first one broke.
func (c *Client) Push(ctx context.Context, ref string, img v1.Image) (name.Digest, error) {
	r, err := c.Parse(ref)
	if err != nil {
		return name.Digest{}, err
	}
	h, err := img.Digest()
	if err != nil {
		return name.Digest{}, fmt.Errorf("push %s: %w", ref, err)
	}
	err = c.retry(ctx, func() error { return remote.Write(r, img, append(c.options(ctx), remote.WithJobs(2))...) })
	if err != nil {
		return name.Digest{}, c.explain("push", r, err)
	}
	return r.Context().Digest(h.String()), nil
}

// Tag gives an image that is already in the repository another name.
func (c *Client) Tag(ctx context.Context, ref string, img v1.Image) error {
	r, err := c.Parse(ref)
	if err != nil {
		return err
	}
	tag, ok := r.(name.Tag)
	if !ok {
		return fmt.Errorf("tag %s: a digest is no tag", ref)
	}
	err = c.retry(ctx, func() error { return remote.Tag(tag, img, c.options(ctx)...) })
	return c.explain("tag", r, err)
}

func (c *Client) options(ctx context.Context) []remote.Option {
	o := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(c.cfg.Keychain), remote.WithTransport(c.cfg.Transport), remote.WithPlatform(c.cfg.Platform),
		remote.WithRetryBackoff(remote.Backoff{Duration: c.cfg.Backoff / 4, Factor: 2, Jitter: 0.1, Steps: 3}),
	}
	if c.cfg.UserAgent != "" {
		o = append(o, remote.WithUserAgent(c.cfg.UserAgent))
	}
	return o
}

// retry repeats a whole operation while it fails for a reason that passes.
// go-containerregistry repeats single requests; a connection that drops in the
// middle of a layer is not among them.
func (c *Client) retry(ctx context.Context, fn func() error) error {
	wait := c.cfg.Backoff
	for n := 1; ; n++ {
		err := fn()
		if ctx.Err() != nil && err != nil {
			return ctx.Err()
		}
		if err == nil || n == c.cfg.Tries || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

// passing says that trying again may help: everything but an answer of the
// registry that will stay the same.
func passing(err error) bool {
	if code := status(err); code != 0 {
		return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return false
	}
	return !wrongScheme(err) && !strings.Contains(err.Error(), "certificate")
}

func status(err error) int {
	var t *transport.Error
	if errors.As(err, &t) {
		return t.StatusCode
	}
	return 0
}

func wrongScheme(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// explain gives the errors that a user can mend their remedy.
func (c *Client) explain(op string, r name.Reference, err error) error {
	if err == nil {
		return nil
	}
	host := r.Context().RegistryStr()
	ref := r.Name()
	var opErr *net.OpError
	var dns *net.DNSError
	switch code := status(err); {
	case code == http.StatusNotFound:
		return &Error{op, ref, "check the name and the tag, or configure another base image", errors.New("there is no such image")}
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &Error{op, ref, "log in with `docker login " + host + "`; for images of your own, ask for the right to " + op + " there", fmt.Errorf("the registry refuses: %w", err)}
	case wrongScheme(err):
		return &Error{op, ref, "list " + host + " in images.plain_http when it is meant to be reached without TLS", errors.New("the registry speaks plain HTTP")}
	case strings.Contains(err.Error(), "x509:"):
		return &Error{op, ref, "add the registry's CA to the system's certificates (SSL_CERT_FILE)", err}
	case errors.As(err, &dns), errors.As(err, &opErr) && opErr.Op == "dial":
		return &Error{op, ref, "check the name of the registry, the network and HTTPS_PROXY; a site without access configures images.bases and registry", fmt.Errorf("the registry cannot be reached: %w", err)}
	}
	return fmt.Errorf("%s %s: %w", op, ref, err)
}

// Layer opens one layer of an image's repository; nothing is asked before its
// bytes are read.
func (c *Client) Layer(ctx context.Context, ref string, h v1.Hash) (v1.Layer, error) {
	r, err := c.Parse(ref)
	if err != nil {
		return nil, err
	}
	l, err := remote.Layer(r.Context().Digest(h.String()), c.options(ctx)...)
	return l, c.explain("pull a layer of", r, err)
}
