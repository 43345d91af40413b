// Command replay is a server that plays the same bytes to everybody at a fixed
// pace. It has no HTTP library, no scheduler and no ambition, so that no load
// generator was tuned on it. GET /truth says how it wrote what it has written
// since it was last asked.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:8000", "address")
	tokens := flag.Int("tokens", 100, "events of each answer")
	ttft := flag.Duration("ttft", 200*time.Millisecond, "from the request to the first event")
	itl := flag.Duration("itl", 20*time.Millisecond, "between two events")
	flag.Parse()
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	s := &server{ttft: *ttft, itl: *itl, tape: record(*tokens)}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go s.serve(c)
	}
}

type server struct {
	ttft, itl time.Duration
	tape      [][]byte // of an answer: headers, events, end

	mu    sync.Mutex
	truth truth
}

// record is what is played: one chunk of HTTP for each event, the first with
// the headers before it.
func record(tokens int) (tape [][]byte) {
	chunk := func(s string) []byte { return fmt.Appendf(nil, "%x\r\n%s\r\n", len(s), s) }
	const head = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"simulated","choices":[{"index":0,"delta":`
	for range tokens {
		tape = append(tape, chunk(head+`{"content":" word"},"logprobs":null,"finish_reason":null}]}`+"\n\n"))
	}
	tape[0] = slices.Concat([]byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"),
		chunk(head+`{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}`+"\n\n"), tape[0])
	end := slices.Concat(chunk(head+`{},"logprobs":null,"finish_reason":"length"}]}`+"\n\n"),
		chunk(fmt.Sprintf(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"simulated","choices":[],"usage":{"prompt_tokens":32,"completion_tokens":%d,"total_tokens":%d}}`, tokens, tokens+32)+"\n\n"),
		chunk("data: [DONE]\n\n"), []byte("0\r\n\r\n"))
	return append(tape, end)
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		method, path, body, err := read(in)
		if err != nil {
			return
		}
		switch {
		case method == "POST" && bytes.Contains(bytes.ReplaceAll(body, []byte(" "), nil), []byte(`"stream":true`)):
			err = s.play(c)
		case method == "POST":
			err = reply(c, `{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"simulated","choices":[{"index":0,"message":{"role":"assistant","content":"word"},"finish_reason":"length"}],"usage":{"prompt_tokens":32,"completion_tokens":1,"total_tokens":33}}`)
		case path == "/truth":
			s.mu.Lock()
			b, _ := json.Marshal(s.truth.take())
			s.mu.Unlock()
			err = reply(c, string(b))
		case path == "/v1/models":
			err = reply(c, `{"object":"list","data":[{"id":"simulated","object":"model","owned_by":"replay"}]}`)
		default:
			err = reply(c, `{}`)
		}
		if err != nil {
			return
		}
	}
}

// read reads one request.
func read(in *bufio.Reader) (method, path string, body []byte, err error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", "", nil, err
	}
	method, rest, _ := strings.Cut(line, " ")
	path, _, _ = strings.Cut(rest, " ")
	length := 0
	for {
		h, err := in.ReadString('\n')
		if err != nil {
			return "", "", nil, err
		}
		if h = strings.TrimSpace(h); h == "" {
			break
		}
		if k, v, _ := strings.Cut(h, ":"); strings.EqualFold(k, "Content-Length") {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil || length > 1<<24 {
				return "", "", nil, fmt.Errorf("length %q", v)
			}
		}
	}
	body = make([]byte, length)
	_, err = io.ReadFull(in, body)
	return method, path, body, err
}

func reply(c net.Conn, body string) error {
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err
}

func (s *server) play(c net.Conn) error {
	came := time.Now()
	wrote := make([]time.Time, 0, len(s.tape)-1)
	s.mu.Lock()
	s.truth.open++
	s.truth.peak = max(s.truth.peak, s.truth.open)
	s.mu.Unlock()
	var err error
	for i, part := range s.tape {
		last := i == len(s.tape)-1
		if !last {
			time.Sleep(time.Until(came.Add(s.ttft + time.Duration(i)*s.itl)))
		}
		if _, err = c.Write(part); err != nil {
			break
		}
		if !last {
			wrote = append(wrote, time.Now())
		}
	}
	s.mu.Lock()
	s.truth.add(came, wrote)
	s.mu.Unlock()
	return err
}

// truth gathers when events were written.
type truth struct {
	ttft, gap, mean []float64 // ms
	from, to        time.Time
	open, peak      int
}

func (t *truth) add(came time.Time, wrote []time.Time) {
	t.open--
	if len(wrote) < 2 {
		return
	}
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	first, last := wrote[0], wrote[len(wrote)-1]
	t.ttft = append(t.ttft, ms(first.Sub(came)))
	for i := 1; i < len(wrote); i++ {
		t.gap = append(t.gap, ms(wrote[i].Sub(wrote[i-1])))
	}
	t.mean = append(t.mean, ms(last.Sub(first))/float64(len(wrote)-1))
	if t.from.IsZero() || first.Before(t.from) {
		t.from = first
	}
	if last.After(t.to) {
		t.to = last
	}
}

// take returns what was gathered and begins anew.
func (t *truth) take() map[string]any {
	shape := func(x []float64) map[string]float64 {
		slices.Sort(x)
		at := func(p float64) float64 {
			if len(x) == 0 {
				return 0
			}
			return x[int(p*float64(len(x)-1))]
		}
		return map[string]float64{"p50": at(0.5), "p99": at(0.99), "max": at(1)}
	}
	events := len(t.gap) + len(t.ttft)
	out := map[string]any{"requests": len(t.ttft), "events": events, "ttft_ms": shape(t.ttft), "gap_ms": shape(t.gap), "mean_gap_ms": shape(t.mean), "peak_streams": t.peak, "events_per_s": 0.0}
	if s := t.to.Sub(t.from).Seconds(); s > 0 {
		out["events_per_s"] = float64(events) / s
	}
	*t = truth{open: t.open, peak: t.open}
	return out
}
