package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// lockPoll is how often a lock held by another process is tried.
const lockPoll = 20 * time.Millisecond

// longestBlock bounds how long a site can make us wait, so that an absurd
// Retry-After does not shut a site for good.
const longestBlock = time.Hour

// limiter holds the limits of sites over all processes that share dir. Per
// class of requests there is a state file, a lock around it, and one lock per
// allowed connection, which is held as long as the request takes. The kernel
// drops the locks of a process that dies.
type limiter struct {
	dir string
	cfg *Config
}

func openLimiter(dir string, cfg *Config) (*limiter, error) {
	return &limiter{dir: dir, cfg: cfg}, makeDir(dir)
}

// limitState is what the processes tell each other about a class of requests.
// Times are of the wall clock, the only one that processes share over a
// restart of the machine.
type limitState struct {
	Last   time.Time `json:"last"`   // when the last request began or ended
	Tokens float64   `json:"tokens"` // left in the bucket at Filled
	Filled time.Time `json:"filled"`
	Set    time.Time `json:"set"`   // when Until was set
	Until  time.Time `json:"until"` // the site asked to be left alone until then
}

// turn is the right to send one request. It must be ended.
type turn struct {
	l    *limiter
	key  string
	lim  Limit
	slot *flock.Flock
}

// limitOf is the class and the limit of a request.
func limitOf(loc location) (string, Limit) {
	key := string(loc.place.name)
	if !loc.home {
		// Content networks and canonical hosts reached by a redirect.
		key += "-redirect"
	}
	if loc.place.endpoint != nil {
		sum := sha256.Sum256([]byte(loc.place.endpoint.String()))
		key += "-" + hex.EncodeToString(sum[:4])
	}
	if loc.place.limit != nil {
		return fileSafe(key), *loc.place.limit
	}
	if !loc.home {
		return fileSafe(key), Limit{Conns: 4}
	}
	b := loc.place.bucketOf(loc.path)
	if b.name != "" {
		key += "." + b.name
	}
	return fileSafe(key), b.limit
}

// fileSafe makes a site's name, which a user may have chosen, a file name.
func fileSafe(s string) string {
	if s = escapeSegment(s); len(s) > 100 {
		sum := sha256.Sum256([]byte(s))
		s = s[:60] + hex.EncodeToString(sum[:8])
	}
	return s
}

// acquire waits for the right to send a request, however long the queue of
// processes is, until the context ends. wait is told of each pause.
func (l *limiter) acquire(ctx context.Context, key string, lim Limit, wait func(d time.Duration, why string)) (*turn, error) {
	t := &turn{l: l, key: key, lim: lim}
	if err := t.takeSlot(ctx, wait); err != nil {
		return nil, err
	}
	// The clock may stand still or go backwards while we sleep, and what was
	// slept was slept: now is never less than the start plus the sleep.
	start := l.cfg.Now()
	var slept time.Duration
	for {
		now := l.cfg.Now()
		if floor := start.Add(slept); now.Before(floor) {
			now = floor
		}
		pause, err := t.try(ctx, now)
		if err == nil && pause > 0 {
			wait(pause, "the site's limit")
			slept += pause
			err = l.cfg.Sleep(ctx, pause)
		}
		if err != nil {
			t.freeSlot()
			return nil, err
		}
		if pause <= 0 {
			return t, nil
		}
	}
}

// takeSlot locks one of the connections.
func (t *turn) takeSlot(ctx context.Context, wait func(time.Duration, string)) error {
	if t.lim.Conns <= 0 {
		return nil
	}
	for n := 0; ; n++ {
		if n == 1 {
			wait(0, "another request to the site is under way")
		}
		for i := range t.lim.Conns {
			f := flock.New(filepath.Join(t.l.dir, fmt.Sprintf("%s.conn%d", t.key, i)))
			ok, err := f.TryLock()
			if err != nil {
				return fmt.Errorf("lock connection to %s: %w", t.key, err)
			}
			if ok {
				t.slot = f
				return nil
			}
		}
		// Locks are held by real processes in real time.
		if err := sleep(ctx, lockPoll); err != nil {
			return err
		}
	}
}

func (t *turn) freeSlot() {
	if t.slot != nil {
		_ = t.slot.Close() // closing a descriptor drops its lock
		t.slot = nil
	}
}

// try takes the turn if it is due and returns 0, or says how long it is not.
func (t *turn) try(ctx context.Context, now time.Time) (time.Duration, error) {
	var pause time.Duration
	err := t.update(ctx, now, func(s *limitState) {
		if block := s.Until.Sub(now); block > 0 {
			pause = block
			return
		}
		if t.lim.Every > 0 && !s.Last.IsZero() {
			pause = t.lim.Every - now.Sub(s.Last)
		}
		if t.lim.Burst > 0 && s.Tokens < 1 {
			missing := time.Duration(math.Ceil((1 - s.Tokens) * float64(t.lim.Per) / float64(t.lim.Burst)))
			pause = max(pause, missing)
		}
		if pause <= 0 {
			s.Last, s.Tokens = now, s.Tokens-1
		}
	})
	if err != nil {
		return 0, err
	}
	if pause > max(t.l.cfg.Retry.MaxWait, 2*t.lim.Every, t.lim.fill()) {
		return 0, &StatusError{URL: t.key, Status: http.StatusTooManyRequests, RetryAfter: pause}
	}
	return pause, nil
}

// fill is how long one token takes to grow back.
func (l Limit) fill() time.Duration {
	if l.Burst <= 0 {
		return 0
	}
	return l.Per / time.Duration(l.Burst)
}

// end gives the turn back, with what the answer's headers said about limits.
func (t *turn) end(h http.Header, status int) error {
	defer t.freeSlot()
	now := t.l.cfg.Now()
	// The request is over whatever became of its context.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return t.update(ctx, now, func(s *limitState) {
		s.Last = now
		if wait := askedWait(h, status, now); wait > 0 {
			s.Set, s.Until = now, now.Add(min(wait, longestBlock))
		}
		if left, ok := remaining(h); ok && t.lim.Burst > 0 {
			s.Tokens = min(s.Tokens, float64(left))
		}
	})
}

// update changes the state under its lock.
func (t *turn) update(ctx context.Context, now time.Time, change func(*limitState)) error {
	path := filepath.Join(t.l.dir, t.key)
	lock := flock.New(path + ".lock")
	if _, err := lock.TryLockContext(ctx, lockPoll); err != nil {
		return fmt.Errorf("lock limit of %s: %w", t.key, err)
	}
	defer lock.Close()
	s, err := t.read(path+".json", now)
	if err != nil {
		return err
	}
	change(&s)
	// Written also when only the reading changed it: the reader may have made
	// sense of a clock that jumped, and time counts from there.
	t.l.cfg.Hook("fetch:limit:before")
	if err := writeJSON(path+".json", s); err != nil {
		return fmt.Errorf("write limit of %s: %w", t.key, err)
	}
	t.l.cfg.Hook("fetch:limit:after")
	return nil
}

// read returns the state, refilled and made sane for a clock that reads now.
func (t *turn) read(path string, now time.Time) (limitState, error) {
	fresh := limitState{Tokens: float64(t.lim.Burst), Filled: now}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("read limit of %s: %w", t.key, err)
	}
	var s limitState
	if json.Unmarshal(data, &s) != nil || math.IsNaN(s.Tokens) || math.IsInf(s.Tokens, 0) {
		// It cannot be known when the site was last asked: as if just then.
		fresh.Last, fresh.Tokens = now, min(fresh.Tokens, 1)
		return fresh, nil
	}
	// A clock that was set back makes the past look like the future. Then the
	// time since cannot be known, and the shortest possible is taken.
	if s.Last.After(now) {
		s.Last = now
	}
	if s.Set.After(now) {
		s.Until = now.Add(s.Until.Sub(s.Set))
		s.Set = now
	}
	if s.Until.Sub(s.Set) > longestBlock {
		s.Until = s.Set.Add(longestBlock)
	}
	if s.Filled.After(now) {
		s.Filled = now
	}
	if t.lim.Burst > 0 && t.lim.Per > 0 {
		grown := float64(now.Sub(s.Filled)) / float64(t.lim.Per) * float64(t.lim.Burst)
		s.Tokens = min(float64(t.lim.Burst), max(s.Tokens, -1)+grown)
	} else {
		s.Tokens = 0
	}
	s.Filled = now
	return s, nil
}
