package git

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/repromill/repromill/planner/fetch"
)

// publicAddr reports whether ip is an address of the public Internet.
func publicAddr(ip netip.Addr) bool { return fetch.NotPublic(ip.Unmap()) == "" }

// publicOnly is the default [Config.DialControl]: it sees the address that is
// about to be dialled, so a name that resolves differently at each look-up
// gains nothing.
func publicOnly(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("check address %q: %w", address, err)
	}
	if !publicAddr(ap.Addr()) {
		return &RepoError{Repo: address, Why: "the address is not public",
			Fix: "configure the host as one of yours if it is"}
	}
	return nil
}

// defaultTransport dials only public addresses and the user's own host:ports,
// through no proxy.
func (c *Cloner) defaultTransport() http.RoundTripper {
	control := c.cfg.DialControl
	if control == nil {
		control = publicOnly
	}
	guarded := &net.Dialer{Timeout: 30 * time.Second, Control: control}
	direct := &net.Dialer{Timeout: 30 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if c.exempt[addr] {
				return direct.DialContext(ctx, network, addr)
			}
			return guarded.DialContext(ctx, network, addr)
		},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 15 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		ReadBufferSize:      64 << 10,
	}
}

// wire is the transport of one checkout: it applies the address policy to every
// hop, counts bytes against the budget and breaks a connection that idles. The
// first error of its own is kept in fault, because go-git does not wrap what
// the transport returns.
type wire struct {
	c      *Cloner
	repo   string
	budget *budget
	onRead func(total int64)

	preamble atomic.Bool // what comes before a pack is read into memory: keep it small

	mu     sync.Mutex
	fault  error  // a refusal of ours
	raw    error  // the last failure of the network
	status int    // of the last response
	after  string // its Retry-After
}

func (w *wire) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault == nil {
		w.fault = err
	}
	return w.fault
}

// first returns the refusal behind err, or else err.
func (w *wire) first(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		return w.fault
	}
	return err
}

// saw notes the outcome of a request or a read.
func (w *wire) saw(err error, res *http.Response) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.raw = err
	if res != nil {
		w.status, w.after = res.StatusCode, res.Header.Get("Retry-After")
	}
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	if why := w.c.refusedURL(req.URL); why != "" {
		return nil, w.fail(&RepoError{Repo: redact(req.URL.String()), Why: why,
			Fix: "give the address it redirects to, if you trust it"})
	}
	ctx, cancel := context.WithCancel(req.Context())
	idle := w.budget.limits.Idle
	timer := time.AfterFunc(idle, func() {
		w.fail(&LimitError{Repo: w.repo, Cap: CapIdle, Limit: int64(idle)})
		cancel()
	})
	res, err := w.c.transport.RoundTrip(req.WithContext(ctx))
	w.saw(err, res)
	if err != nil {
		timer.Stop()
		cancel()
		return nil, w.first(err)
	}
	timer.Stop()
	w.preamble.Store(true)
	res.Body = &countedBody{ReadCloser: res.Body, w: w, timer: timer, idle: idle, cancel: cancel}
	if res.StatusCode >= 400 {
		// An error page is quoted, never needed whole.
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, 4<<10), res.Body}
	}
	return res, nil
}

// maxPreamble bounds the list of refs and what precedes a pack: some 500,000
// refs.
const maxPreamble = 32 << 20

type countedBody struct {
	io.ReadCloser
	w      *wire
	n      int64 // read so far
	timer  *time.Timer
	idle   time.Duration
	cancel context.CancelFunc
}

func (b *countedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop() // what the reader does with the bytes is not the server's time
	if b.n += int64(n); b.n > maxPreamble && b.w.preamble.Load() {
		return 0, b.w.fail(&LimitError{Repo: b.w.repo, Cap: CapTransfer, Limit: maxPreamble, What: "before the pack"})
	}
	total := b.w.budget.received.Add(int64(n))
	if limit := b.w.budget.limits.TransferBytes; total > limit {
		return 0, b.w.fail(&LimitError{Repo: b.w.repo, Cap: CapTransfer, Limit: limit, Got: total})
	}
	if b.w.onRead != nil && n > 0 {
		b.w.onRead(total)
	}
	if err != nil && err != io.EOF {
		b.w.saw(err, nil)
		err = b.w.first(err)
	}
	return n, err
}

func (b *countedBody) Close() error {
	b.timer.Stop()
	b.cancel()
	return b.ReadCloser.Close()
}
