package endpoint

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Sample is one value of a metrics page.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// Metrics is a server's /metrics page, in the Prometheus text format.
type Metrics []Sample

// Sum returns the sum of all samples of a name, and whether there is any.
func (m Metrics) Sum(name string) (sum float64, ok bool) {
	for _, s := range m {
		if s.Name == name && !math.IsNaN(s.Value) {
			sum, ok = sum+s.Value, true
		}
	}
	return sum, ok
}

// describe takes from vLLM's metrics what they say of the server.
func (m Metrics) describe(id *Identity) {
	for _, s := range m {
		switch s.Name {
		case "process_start_time_seconds":
			if s.Value > 0 && s.Value < 1e11 {
				id.StartTime = time.UnixMilli(int64(s.Value * 1000)).UTC()
			}
		case "vllm:cache_config_info":
			if v := s.Labels["cache_dtype"]; v != "" {
				id.KVDtype = clipped(v)
			}
			blocks, err1 := strconv.ParseInt(s.Labels["num_gpu_blocks"], 10, 64)
			size, err2 := strconv.ParseInt(s.Labels["block_size"], 10, 64)
			if err1 == nil && err2 == nil && blocks > 0 && size > 0 && blocks < 1<<40 && size < 1<<20 {
				id.KVTokens = blocks * size
			}
		case "repromill:engine_info": // of the embedded engine: what it multiplies, and with what
			id.Kernel = clipped(strings.TrimSpace(s.Labels["math"] + " " + s.Labels["kernel"]))
		}
		if strings.HasPrefix(s.Name, "vllm:") && id.Engine == "" {
			id.Engine = "vllm"
		}
	}
}

// Metrics reads /metrics. The error is an [*Error], also where there is none.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	b, err := c.do(ctx, http.MethodGet, c.root+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	return ParseMetrics(b), nil
}

// ParseMetrics reads a page in the Prometheus text format; lines that are none
// are left out.
func ParseMetrics(page []byte) Metrics {
	var out Metrics
	sc := bufio.NewScanner(bytes.NewReader(page))
	sc.Buffer(nil, len(page)+1)
	for sc.Scan() {
		if s, ok := parseSample(strings.TrimSpace(sc.Text())); ok {
			out = append(out, s)
		}
	}
	return out
}

func parseSample(line string) (Sample, bool) {
	if line == "" || line[0] == '#' {
		return Sample{}, false
	}
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return Sample{}, false
	}
	s := Sample{Name: line[:end]}
	rest := line[end:]
	if rest[0] == '{' {
		var ok bool
		if s.Labels, rest, ok = parseLabels(rest[1:]); !ok {
			return Sample{}, false
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return Sample{}, false
	}
	var err error
	s.Value, err = strconv.ParseFloat(fields[0], 64)
	return s, err == nil
}

// parseLabels reads name="value" pairs up to the closing brace.
func parseLabels(in string) (map[string]string, string, bool) {
	labels := map[string]string{}
	for {
		in = strings.TrimLeft(in, " ,\t")
		if rest, ok := strings.CutPrefix(in, "}"); ok {
			return labels, rest, true
		}
		name, rest, ok := strings.Cut(in, "=")
		rest = strings.TrimLeft(rest, " ")
		if !ok || !strings.HasPrefix(rest, `"`) {
			return nil, "", false
		}
		var v strings.Builder
		i := 1
		for ; i < len(rest) && rest[i] != '"'; i++ {
			if rest[i] == '\\' && i+1 < len(rest) {
				i++
				if rest[i] == 'n' {
					v.WriteByte('\n')
					continue
				}
			}
			v.WriteByte(rest[i])
		}
		if i >= len(rest) {
			return nil, "", false
		}
		labels[strings.TrimSpace(name)] = v.String()
		in = rest[i+1:]
	}
}

// sideTime bounds a request about the server itself.
const sideTime = 30 * time.Second

func (c *Client) get(ctx context.Context, url string, v any) error {
	b, err := c.do(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if err := decode(b, v); err != nil {
		return &Error{Kind: Malformed, URL: c.base, Detail: clipped(fmt.Sprintf("%s: %v", url, err))}
	}
	return nil
}

func (c *Client) post(ctx context.Context, url string, body, v any) error {
	in, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	b, err := c.do(ctx, http.MethodPost, url, in)
	if err != nil {
		return err
	}
	if err := decode(b, v); err != nil {
		return &Error{Kind: Malformed, URL: c.base, Detail: clipped(fmt.Sprintf("%s: %v", url, err))}
	}
	return nil
}

// do sends a request about the server, once.
func (c *Client) do(parent context.Context, method, url string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(parent, sideTime, &stallError{"no answer", sideTime})
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	c.authorise(req)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(ctx, Unreachable, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 32<<20))
	if err != nil {
		return nil, c.broken(ctx, Cut, err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, &Error{Kind: statusKind(res.StatusCode), Status: res.StatusCode, URL: c.base, Detail: clipped(redact(errorText(b), c.c.Key))}
	}
	return b, nil
}
