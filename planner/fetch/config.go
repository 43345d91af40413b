package fetch

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Config says how the outside is reached. Of its fields only CacheDir, or
// Mirror, is needed.
type Config struct {
	// CacheDir is the folder that all processes of a user share.
	CacheDir string
	// Mirror is a folder that answers everything; when it is set nothing is
	// dialled and nothing is cached. See the package comment for its layout.
	Mirror string
	// Record is a folder in the layout of a mirror that every final answer is
	// also written to. Nothing is recorded from a Mirror.
	Record string

	// HFToken is sent to the hub's own host. Over plain http it is sent to a
	// loopback address only.
	HFToken string
	// Endpoints replaces where a site is asked: "https://hub.example.org" or
	// "http://127.0.0.1:8080/hub". Exactly this host and port is exempt from
	// the check of addresses. A name that is not in the table adds a site.
	Endpoints map[Site]string
	// Limits replaces the table's limits of a site.
	Limits map[Site]Limit
	// Proxy is an http or https proxy, "http://proxy.example.org:3128". A
	// proxy resolves names itself, so the check of addresses is its task. The
	// environment's proxy variables are not read.
	Proxy string
	// RootCAs are the authorities to trust; nil means the system's.
	RootCAs *x509.CertPool
	// Resolver looks up names; nil means the system's.
	Resolver *net.Resolver
	// UserAgent names this program to the sites.
	UserAgent string

	// MaxAge is the life of a cached answer, 0 means 24 h.
	MaxAge time.Duration
	// MissingAge is the life of a cached 404 or 410, 0 means 10 min.
	MissingAge time.Duration
	// MaxBytes caps a decompressed body, 0 means 20 MiB.
	MaxBytes int64
	Timeouts Timeouts
	Retry    Retry

	// Progress, when set, hears about waiting, retries and large bodies. It is
	// called from the goroutine that asked.
	Progress func(Progress)
	// Now is the clock, nil means time.Now.
	Now func() time.Time
	// Sleep waits, nil means a timer. It returns early with the context's
	// error.
	Sleep func(context.Context, time.Duration) error
	// Jitter returns numbers in [0, 1), nil means math/rand.
	Jitter func() float64
	// Hook is called around every durable step with "fetch:<step>:before" and
	// "fetch:<step>:after", where step is blob, meta, limit or record.
	Hook func(point string)
}

// Timeouts are caps on time. Zero means the default.
type Timeouts struct {
	Connect time.Duration // name look-up, connection and TLS: 10 s
	Header  time.Duration // from the request to the head of the answer: 10 s
	Idle    time.Duration // between two pieces of the body: 15 s
	Total   time.Duration // one answer from the request to its end: 2 min
}

// Retry says how a refusal for now (429, 502, 503, 504) and a dropped
// connection are met. Zero means the default.
type Retry struct {
	Attempts   int           // in all, the first included: 4
	Base       time.Duration // first backoff, doubled each time: 500 ms
	MaxBackoff time.Duration // longest backoff of our own: 30 s
	MaxWait    time.Duration // longest Retry-After to obey: 5 min
	Budget     time.Duration // all waiting between attempts: 10 min
}

// Progress is a note about a request that takes its time.
type Progress struct {
	URL string
	// Phase is "wait" (for the site's limit), "retry" or "body".
	Phase string
	// Wait is how long, for wait and retry; 0 where that cannot be known.
	Wait time.Duration
	// Reason says why, for wait and retry.
	Reason string
	// Bytes of Total have arrived; Total is -1 when it is not known.
	Bytes, Total int64
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.MaxAge, 24*time.Hour)
	def(&c.MissingAge, 10*time.Minute)
	def(&c.Timeouts.Connect, 10*time.Second)
	def(&c.Timeouts.Header, 10*time.Second)
	def(&c.Timeouts.Idle, 15*time.Second)
	def(&c.Timeouts.Total, 2*time.Minute)
	def(&c.Retry.Base, 500*time.Millisecond)
	def(&c.Retry.MaxBackoff, 30*time.Second)
	def(&c.Retry.MaxWait, 5*time.Minute)
	def(&c.Retry.Budget, 10*time.Minute)
	if c.Retry.Attempts == 0 {
		c.Retry.Attempts = 4
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = 20 << 20
	}
	if c.UserAgent == "" {
		c.UserAgent = "repromill (+https://github.com/repromill/repromill)"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Sleep == nil {
		c.Sleep = sleep
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	if c.Progress == nil {
		c.Progress = func(Progress) {}
	}
	return c
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Client asks the sites. It is safe for concurrent use, and so are several
// clients in several processes on the same cache folder.
type Client struct {
	cfg    Config
	places []*place
	bySite map[Site]*place
	hosts  map[string]*place
	http   *http.Transport
	cache  *cache
	limits *limiter
	// mirror is set instead of the three above.
	mirror  *mirror
	overlay Overlay
}

// New checks the configuration and prepares the folders.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	c := &Client{cfg: cfg, bySite: map[Site]*place{}, hosts: map[string]*place{}}
	exempt, err := c.addPlaces()
	if err != nil {
		return nil, err
	}
	if cfg.Mirror != "" {
		if c.mirror, err = openMirror(cfg.Mirror); err != nil {
			return nil, err
		}
		c.overlay, err = c.mirror.overlay()
		return c, err
	}
	if cfg.CacheDir == "" {
		return nil, &configError{"no cache folder is given", "set CacheDir"}
	}
	var proxy *url.URL
	if cfg.Proxy != "" {
		if proxy, err = parseEndpoint("proxy", cfg.Proxy); err != nil {
			return nil, err
		}
		exempt[hostPort(proxy)] = true
	}
	c.http = newTransport(&c.cfg, exempt, proxy)
	if c.cache, err = openCache(filepath.Join(cfg.CacheDir, "http"), cfg.Now, cfg.Hook); err != nil {
		return nil, err
	}
	if c.limits, err = openLimiter(filepath.Join(cfg.CacheDir, "limits"), &c.cfg); err != nil {
		return nil, err
	}
	return c, nil
}

// addPlaces fills the tables and returns the host:port pairs that are exempt
// from the check of addresses.
func (c *Client) addPlaces() (map[string]bool, error) {
	exempt := map[string]bool{}
	for _, s := range sites {
		c.places = append(c.places, &place{site: s})
	}
	for _, name := range slices.Sorted(maps.Keys(c.cfg.Endpoints)) {
		if !slices.ContainsFunc(sites, func(s site) bool { return s.name == name }) {
			c.places = append(c.places, &place{site: site{name: name}})
		}
	}
	for _, p := range c.places {
		if raw := c.cfg.Endpoints[p.name]; raw != "" {
			u, err := parseEndpoint("endpoint of "+string(p.name), raw)
			if err != nil {
				return nil, err
			}
			if p.host == "" {
				p.host = u.Host
			}
			// An endpoint that is the site's own address stays guarded.
			if u.String() != "https://"+p.host || !isKnownHost(u.Host) {
				p.endpoint = u
				exempt[hostPort(u)] = true
			}
		}
		if l, ok := c.cfg.Limits[p.name]; ok {
			p.limit = &l
		}
		c.bySite[p.name] = p
		for _, h := range append([]string{p.host}, p.aliases...) {
			if h != "" && c.hosts[h] == nil {
				c.hosts[h] = p
			}
		}
	}
	for name := range c.cfg.Limits {
		if c.bySite[name] == nil {
			return nil, &configError{fmt.Sprintf("limits: no site is called %q", name), "name one of the sites, or give it an endpoint"}
		}
	}
	return exempt, nil
}

// Close drops idle connections and the mirror's folder.
func (c *Client) Close() error {
	if c.mirror != nil {
		return c.mirror.root.Close()
	}
	c.http.CloseIdleConnections()
	return nil
}

func isKnownHost(host string) bool {
	return slices.ContainsFunc(sites, func(s site) bool { return s.host == host })
}

// parseEndpoint reads a base URL from the configuration.
func parseEndpoint(what, raw string) (*url.URL, error) {
	u, err := parseURL(raw)
	if err == nil && (u.RawQuery != "" || u.ForceQuery) {
		err = errors.New("it has a query")
	}
	var path string
	if err == nil {
		path, err = cleanPath(u.EscapedPath())
	}
	if err != nil {
		return nil, &configError{fmt.Sprintf("%s %q: %v", what, clip(raw), err), "give it as https://host or https://host/path"}
	}
	for len(path) > 0 && path[len(path)-1] == '/' {
		path = path[:len(path)-1]
	}
	return url.Parse(u.Scheme + "://" + u.Host + path)
}

// makeDir creates a folder that only the user may read: answers may be of
// gated repositories.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	return nil
}
