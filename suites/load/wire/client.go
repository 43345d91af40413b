package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/suites/endpoint/sse"
)

// Config says where requests go.
type Config struct {
	URL         string            // of the endpoint, such as http://127.0.0.1:8000/v1/chat/completions
	Header      map[string]string // sent with every request, such as Authorization
	TLS         *tls.Config       // nil for the usual one
	Clock       Clock
	DialTimeout time.Duration // 0 for 10 s
	IdleTimeout time.Duration // between two reads of one answer, 0 for 120 s
	MaxIdle     int           // connections kept open between requests, 0 for 1024
}

// Client sends requests to one endpoint. It is safe for use by many goroutines.
type Client struct {
	cfg  Config
	url  *url.URL
	head []byte // of every request, up to the value of Content-Length
	mu   sync.Mutex
	idle []*conn
	open map[*conn]bool
}

// New returns a client.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("parse endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("parse endpoint %q: want http://host:port/path or https://…", cfg.URL)
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 10 * time.Second
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = 2 * time.Minute
	}
	if cfg.MaxIdle == 0 {
		cfg.MaxIdle = 1024
	}
	head := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n", u.RequestURI(), u.Host)
	for k, v := range cfg.Header {
		if !validHeader(k) || !validHeader(v) {
			return nil, fmt.Errorf("header %q holds a line break", k)
		}
		head = fmt.Appendf(head, "%s: %s\r\n", k, v)
	}
	return &Client{cfg: cfg, url: u, head: append(head, "Content-Length: "...), open: map[*conn]bool{}}, nil
}

func validHeader(s string) bool {
	for _, c := range []byte(s) {
		if c == '\r' || c == '\n' || c == 0 {
			return false
		}
	}
	return true
}

// Answer is when the parts of one answer came, in nanoseconds of the client's
// clock; 0 for what never came.
type Answer struct {
	Start     int64 // the request was begun
	Sent      int64 // its last byte was written
	Headers   int64 // the response's headers were in
	FirstByte int64 // the first byte of the body was in
	End       int64 // the body was over, or broke off
	Status    int   // HTTP status
	Retries   int   // sent again because a kept connection had been closed
	Body      []byte
}

// maxErrorBody is how much of an answer that is no stream is kept.
const maxErrorBody = 4 << 10

// Do sends one request and calls event with the data of each event and the
// moment at which its last byte came. An answer with another status than 200 is
// no error: its beginning is in Answer.Body. An error from event ends the answer
// and is returned. The answer tells what came before an error, too.
func (c *Client) Do(ctx context.Context, body []byte, event func(data []byte, at int64) error) (Answer, error) {
	var a Answer
	a.Start = c.cfg.Clock.Now()
	for {
		cn, kept, err := c.get(ctx)
		if err != nil {
			a.End = c.cfg.Clock.Now()
			return a, err
		}
		again, err := c.try(ctx, cn, body, event, &a)
		if err != nil && again && kept && ctx.Err() == nil {
			a.Retries++
			continue
		}
		if ctx.Err() != nil && err != nil {
			err = context.Cause(ctx)
		}
		return a, err
	}
}

// try uses a connection once. again says that nothing of an answer came, so that
// the server closed the connection before it saw the request.
func (c *Client) try(ctx context.Context, cn *conn, body []byte, event func([]byte, int64) error, a *Answer) (again bool, err error) {
	stop := context.AfterFunc(ctx, func() { cn.Close() })
	reuse := false
	defer func() {
		a.End = c.cfg.Clock.Now()
		if stop() && reuse {
			c.put(cn)
		} else {
			c.drop(cn)
		}
	}()
	_ = cn.SetDeadline(time.Now().Add(c.cfg.IdleTimeout))
	cn.out = append(cn.out[:0], c.head...)
	cn.out = fmt.Appendf(cn.out, "%d\r\n\r\n", len(body))
	cn.out = append(cn.out, body...)
	_, err = cn.Write(cn.out)
	a.Sent = c.cfg.Clock.Now()
	if err != nil {
		return true, fmt.Errorf("send request: %w", err)
	}
	if cap(cn.out) > 64<<10 {
		cn.out = nil
	}
	if b, err := cn.in.Peek(4); err == nil && b[0] == 0 && b[3] == settingsFrame {
		return false, ErrHTTP2
	}
	res, err := http.ReadResponse(cn.in, nil)
	if err != nil {
		return cn.read == 0, fmt.Errorf("read response: %w", timeout(err, c.cfg.IdleTimeout))
	}
	defer res.Body.Close()
	a.Headers, a.Status = cn.at, res.StatusCode
	if res.StatusCode != http.StatusOK {
		a.Body, err = io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
		if err != nil {
			return false, fmt.Errorf("read response: %w", err)
		}
		return false, nil
	}
	err = c.stream(cn, res.Body, event, a)
	reuse = err == nil && !res.Close && cn.in.Buffered() == 0
	return false, err
}

func (c *Client) stream(cn *conn, body io.Reader, event func([]byte, int64) error, a *Answer) error {
	cn.events.Reset(&bodyReader{Reader: body, cn: cn, a: a, idle: c.cfg.IdleTimeout})
	for {
		ev, err := cn.events.Next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("read stream: %w", timeout(err, c.cfg.IdleTimeout))
		}
		if err := event(ev.Data, cn.at); err != nil {
			return err
		}
	}
}

// bodyReader notes the first byte and puts the deadline off while bytes come.
type bodyReader struct {
	io.Reader
	cn   *conn
	a    *Answer
	idle time.Duration
	last int64 // when the deadline was set
}

func (r *bodyReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if n > 0 && r.a.FirstByte == 0 {
		r.a.FirstByte = r.cn.at
	}
	// Setting a deadline costs as much as reading; once a second will do.
	if r.cn.at-r.last > int64(time.Second) {
		r.last = r.cn.at
		_ = r.cn.SetDeadline(time.Now().Add(r.idle))
	}
	return n, err
}

// ErrIdle says that a server sent nothing for as long as is allowed.
var ErrIdle = errors.New("the server sent nothing")

func timeout(err error, after time.Duration) error {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return fmt.Errorf("%w for %s", ErrIdle, after)
	}
	return err
}

// HTTP2Error says that a server speaks nothing but HTTP/2.
type HTTP2Error struct{}

func (HTTP2Error) Error() string { return "the server speaks HTTP/2 only" }

// UserError returns the fix.
func (HTTP2Error) UserError() string {
	return "measure the model server itself, which speaks HTTP/1.1, or let its proxy do so: streams that share one connection also share its delays"
}

// ErrHTTP2 is the one [HTTP2Error].
var ErrHTTP2 error = HTTP2Error{}

// settingsFrame is the type of the frame with which HTTP/2 begins (RFC 9113 §3.4).
const settingsFrame = 4

// noProtocol is how crypto/tls words the alert no_application_protocol (RFC 7301
// §3.2), for which it has no exported value.
const noProtocol = "no application protocol"

// readSize bounds how many events one read brings; more would be no faster, as
// a stream's events come one by one.
const readSize = 4 << 10

// conn notes when bytes came. What two layers of buffers hold came with its last
// read.
type conn struct {
	net.Conn
	clock  Clock
	in     *bufio.Reader
	events *sse.Reader
	out    []byte
	at     int64 // the last read returned
	read   int64 // bytes since the request was sent
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.at = c.clock.Now()
	c.read += int64(n)
	return n, err
}

func (c *Client) get(ctx context.Context) (cn *conn, kept bool, err error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		cn = c.idle[n-1]
		c.idle = c.idle[:n-1]
	}
	c.mu.Unlock()
	if cn != nil {
		cn.read = 0
		return cn, true, nil
	}
	host := c.url.Host
	if c.url.Port() == "" {
		host = net.JoinHostPort(c.url.Hostname(), map[string]string{"http": "80", "https": "443"}[c.url.Scheme])
	}
	d := net.Dialer{Timeout: c.cfg.DialTimeout}
	nc, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, false, fmt.Errorf("connect: %w", err)
	}
	if c.url.Scheme == "https" {
		t := &tls.Config{}
		if c.cfg.TLS != nil {
			t = c.cfg.TLS.Clone()
		}
		if t.ServerName == "" {
			t.ServerName = c.url.Hostname()
		}
		t.NextProtos = []string{"http/1.1"}
		tc := tls.Client(nc, t)
		if err := tc.HandshakeContext(ctx); err != nil {
			nc.Close()
			if strings.Contains(err.Error(), noProtocol) {
				err = ErrHTTP2
			}
			return nil, false, fmt.Errorf("connect: %w", err)
		}
		nc = tc
	}
	cn = &conn{Conn: nc, clock: c.cfg.Clock}
	cn.in = bufio.NewReaderSize(cn, readSize)
	cn.events = sse.NewReaderSize(nil, readSize)
	c.mu.Lock()
	c.open[cn] = true
	c.mu.Unlock()
	return cn, false, nil
}

func (c *Client) put(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) < c.cfg.MaxIdle {
		c.idle = append(c.idle, cn)
		return
	}
	delete(c.open, cn)
	cn.Close()
}

func (c *Client) drop(cn *conn) {
	cn.Close()
	c.mu.Lock()
	delete(c.open, cn)
	c.mu.Unlock()
}

// Idle is the number of connections that are kept open for later requests.
func (c *Client) Idle() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.idle)
}

// Close closes all connections. Answers that are under way end with an error.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cn := range c.open {
		cn.Close()
	}
	clear(c.open)
	c.idle = nil
}
