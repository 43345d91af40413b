package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/store"
)

// hub follows each run that is watched once, however many watch it, and hands
// every event, encoded once, to all of them.
type hub struct {
	store  *store.Store
	mu     sync.Mutex
	topics map[string]*topic
	count  int
}

// frame is one event as it goes over the wire.
type frame struct {
	seq  int64
	body []byte
}

// topic is one run with who watches it.
type topic struct {
	watchers map[*watcher]struct{}
	stop     context.CancelFunc
}

// watcher gets frames until its channel is closed: by the end of the run, or
// because it does not read them; then its client comes back for what it missed.
type watcher struct {
	frames chan frame
	ended  bool // the run has: nothing more will come
}

func (h *hub) init(st *store.Store) { h.store, h.topics = st, map[string]*topic{} }

// watchers is how many streams are open.
func (h *hub) watchers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// backlog is how many events a watcher may lag behind.
const backlog = 64

func (h *hub) join(run string, after int64) *watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := &watcher{frames: make(chan frame, backlog)}
	t := h.topics[run]
	if t == nil {
		ctx, stop := context.WithCancel(context.Background())
		t = &topic{watchers: map[*watcher]struct{}{}, stop: stop}
		h.topics[run] = t
		go h.follow(ctx, run, t, after)
	}
	t.watchers[w] = struct{}{}
	h.count++
	return w
}

func (h *hub) leave(run string, w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count--
	t := h.topics[run]
	if t == nil {
		return
	}
	delete(t.watchers, w)
	if len(t.watchers) == 0 {
		t.stop()
		delete(h.topics, run)
	}
}

func (h *hub) follow(ctx context.Context, run string, t *topic, after int64) {
	err := h.store.Follow(ctx, run, after, nil, func(e store.Event) error {
		f := encode(e)
		h.mu.Lock()
		defer h.mu.Unlock()
		for w := range t.watchers {
			select {
			case w.frames <- f:
			default:
				close(w.frames)
				delete(t.watchers, w)
			}
		}
		return nil
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range t.watchers {
		w.ended = err == nil
		close(w.frames)
	}
	clear(t.watchers)
	if h.topics[run] == t {
		delete(h.topics, run)
	}
}

// event is an event as the API gives it.
func event(e store.Event) runner.Event {
	return runner.Event{Seq: e.Seq, RunID: e.RunID, Stage: e.Stage, Time: e.Time, Kind: runner.EventKind(e.Kind), Data: e.Data}
}

// encode writes an event as server-sent events have it (WHATWG HTML, 9.2). The
// kinds all come as "message", so that a client that knows none sees all.
func encode(e store.Event) frame {
	body, err := json.Marshal(event(e))
	if err != nil {
		body = []byte(`{"kind":"log"}`)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "id: %d\ndata: %s\n\n", e.Seq, body)
	return frame{e.Seq, b.Bytes()}
}

// The rhythm of a stream.
const (
	heartbeat  = 20 * time.Second
	writeLimit = 10 * time.Second // of one write; a client that takes longer is let go
	replayPage = 500
)

// stream sends the events after a number, those there are and those to come.
func (c *call) stream(run store.Run, after int64) (err error) {
	s := c.s
	if s.hub.watchers() >= s.cfg.MaxWatchers {
		p := problemf(http.StatusServiceUnavailable, "come back later, or ask for /v1/runs/{id} now and then", "%d watch already", s.cfg.MaxWatchers)
		p.retry = 10 * time.Second
		return p
	}
	last, err := s.cfg.Store.LastSeq(c.r.Context(), run.ID)
	if err != nil {
		return err
	}
	w := s.hub.join(run.ID, last)
	defer s.hub.leave(run.ID, w)
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	c.w.WriteHeader(http.StatusOK)
	out := &sender{c.w, http.NewResponseController(c.w)}
	_ = out.ctrl.SetReadDeadline(time.Time{}) // the server's is for requests
	if err := out.send([]byte("retry: 2000\n\n")); err != nil {
		return nil
	}
	if after, err = c.replay(out, run.ID, after); err != nil {
		return nil
	}
	beat := time.NewTimer(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-c.r.Context().Done():
			return nil
		case <-s.ending:
			return nil
		case <-beat.C:
			err = out.send([]byte(": still here\n\n"))
		case f, open := <-w.frames:
			switch {
			case !open && w.ended:
				// What came between the replay and the end of the topic.
				if _, err = c.replay(out, run.ID, after); err == nil {
					_ = out.send([]byte("event: end\ndata: {}\n\n"))
				}
				return nil
			case !open:
				return nil // it comes back for the rest
			case f.seq > after:
				err, after = out.send(f.body), f.seq
			}
		}
		if err != nil {
			return nil
		}
		beat.Reset(heartbeat)
	}
}

func (c *call) replay(out *sender, run string, after int64) (int64, error) {
	for {
		list, err := c.s.cfg.Store.Events(c.r.Context(), run, after, replayPage)
		if err != nil {
			return after, err
		}
		var b bytes.Buffer
		for _, e := range list {
			b.Write(encode(e).body)
			after = e.Seq
		}
		if b.Len() > 0 {
			if err := out.send(b.Bytes()); err != nil {
				return after, err
			}
		}
		if len(list) < replayPage {
			return after, nil
		}
	}
}

// sender writes to a client, for so long.
type sender struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

func (o *sender) send(b []byte) error {
	_ = o.ctrl.SetWriteDeadline(time.Now().Add(writeLimit))
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.ctrl.Flush()
}

// lastEvent is the number after which a client wants events: what its
// EventSource says when it comes back, or the parameter.
func lastEvent(r *http.Request) (int64, error) {
	v := r.Header.Get("Last-Event-ID")
	if v == "" {
		v = r.URL.Query().Get("after")
	}
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 {
		return 0, problemf(http.StatusBadRequest, "give the number of an event", "%q is no event's number", v)
	}
	return n, nil
}
