package server

import (
	"bufio"
	"bytes"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/suites/servers"
)

// The prefixes of log lines: the process that vLLM names, the level with time
// and source, and SGLang's time with its ranks. Colours are left out before.
var (
	ansi       = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)
	vllmProc   = regexp.MustCompile(`^\((\w+(?:_DP\d+)?(?:_TP\d+)?(?:_EP\d+)?)(?: pid=\d+)?\)\s*`)
	vllmPrefix = regexp.MustCompile(`^(?:INFO|WARNING|ERROR|DEBUG|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\]|\S+\.py:\d+\])\s*`)
	sglPrefix  = regexp.MustCompile(`^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d((?: [A-Z]{2,4}\d+)*)\]\s*(?:(?:INFO|WARNING|ERROR) \w+\.py:\d+: )?`)
	dpRank     = regexp.MustCompile(`DP(\d+)`)
)

// line is a line of a log without what stands before the message.
type line struct {
	text string
	rank string // data-parallel rank, "" for none
}

func readLine(s string) line {
	s = strings.TrimSpace(ansi.ReplaceAllString(s, ""))
	l := line{}
	note := func(where string) {
		if m := dpRank.FindStringSubmatch(where); m != nil {
			l.rank = m[1]
		}
	}
	if m := vllmProc.FindStringSubmatch(s); m != nil {
		note(m[1])
		s = s[len(m[0]):]
	}
	if m := vllmPrefix.FindString(s); m != "" {
		s = s[len(m):]
	} else if m := sglPrefix.FindStringSubmatch(s); m != nil {
		note(m[1])
		s = s[len(m[0]):]
	}
	l.text = s
	return l
}

// maxLine is how much of one line is read: SGLang prints all of its settings in
// one, a progress bar is one line for as long as it grows.
const maxLine = 256 << 10

// eachLine calls f for every line of a log, its carriage returns being ends of
// lines, too; what is longer than maxLine is cut.
func eachLine(r io.Reader, f func(string)) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var cur []byte
	for {
		part, err := br.ReadSlice('\n')
		if room := maxLine - len(cur); room > 0 {
			cur = append(cur, part[:min(len(part), room)]...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		for one := range bytes.SplitSeq(bytes.TrimRight(cur, "\r\n"), []byte{'\r'}) {
			if len(bytes.TrimSpace(one)) > 0 {
				f(strings.ToValidUTF8(string(one), "�"))
			}
		}
		cur = cur[:0]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// ParseLog reads what a server's log says of how it serves: of vLLM
// (vllm/v1/engine/core.py, vllm/v1/worker/gpu_worker.py, gpu_model_runner.py,
// vllm/v1/core/kv_cache_utils.py, vllm/compilation/monitor.py,
// vllm/platforms/cuda.py, model_executor/kernels/linear), versions 0.6 to 0.27,
// and of SGLang (python/sglang/srt/model_executor/model_runner.py,
// mem_cache/memory_pool.py, server_args.py, managers/scheduler.py), versions 0.3
// to 0.5. Whatever a log does not say stays zero; an error is one of reading.
func ParseLog(r io.Reader) (servers.Facts, error) {
	p := parser{kv: map[string]int64{}}
	err := eachLine(r, func(s string) { p.read(readLine(s)) })
	return p.finish(), err
}

// rule takes from a line what its expression finds.
type rule struct {
	re  *regexp.Regexp
	has string // a word without which the expression is not tried
	set func(p *parser, m []string)
}

type parser struct {
	f       servers.Facts
	kv      map[string]int64 // tokens by data-parallel rank
	rank    string
	dynamo  float64
	compile float64
	block   int64
}

func (p *parser) read(l line) {
	p.rank = l.rank
	for _, r := range rules {
		if !strings.Contains(l.text, r.has) {
			continue
		}
		if m := r.re.FindStringSubmatch(l.text); m != nil {
			r.set(p, m)
		}
	}
	for _, w := range slower {
		if strings.Contains(l.text, w) {
			p.warn(l.text)
		}
	}
}

// slower are words of warnings on which a comparison of formats may hang.
var slower = []string{
	"Weight-only FP4 compression will be used", "Weight-only FP8 compression will be used", "Performance might be sub-optimal",
	"does not support CUDA graph", "Enforce eager set", "CUDA graph is disabled", "Falling back to", "falling back to", "Disable prefill CUDA graph",
}

func (p *parser) warn(s string) {
	s = clip(s)
	if len(p.f.Warnings) < 32 && !slices.Contains(p.f.Warnings, s) {
		p.f.Warnings = append(p.f.Warnings, s)
	}
}

func (p *parser) kernel(s string) {
	s = strings.Trim(clip(s), `'"`)
	if s != "" && len(p.f.Kernels) < 16 && !slices.Contains(p.f.Kernels, s) {
		p.f.Kernels = append(p.f.Kernels, s)
	}
}

// gemm notes what SGLang's settings choose; auto says nothing.
func (p *parser) gemm(format, backend string) {
	if backend != "auto" {
		p.kernel(format + "-GEMM:" + backend)
	}
}

// tokens notes the size of a rank's pool. Ranks that share a cache say the same;
// of several sizes the smallest bounds what fits.
func (p *parser) tokens(s string) {
	n := integer(s)
	if have, ok := p.kv[p.rank]; n > 0 && (!ok || n < have) {
		p.kv[p.rank] = n
	}
}

func (p *parser) finish() servers.Facts {
	f := p.f
	for _, n := range p.kv {
		f.KVTokens += n
	}
	if f.KVTokens == 0 && f.KVBlocks > 0 && p.block > 0 {
		f.KVTokens = f.KVBlocks * p.block
	}
	if f.CompileS = p.compile; f.CompileS == 0 {
		f.CompileS = p.dynamo
	}
	return f
}

func first(to *string, s string) {
	if s = clip(strings.Trim(s, `'"`)); *to == "" && s != "" && s != "None" {
		*to = s
	}
}

func firstOf(to *float64, v float64) {
	if *to == 0 {
		*to = v
	}
}

const gib = 1 << 30

func bytesOf(s string) int64 { return int64(number(s) * gib) }

// number reads a finite number that is not negative, else 0.
func number(s string) float64 {
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, ",", ""), 64)
	if err != nil || !(v >= 0) || v > 1e9 {
		return 0
	}
	return v
}

func integer(s string) int64 {
	v, err := strconv.ParseInt(strings.ReplaceAll(s, ",", ""), 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64/(1<<20) {
		return 0
	}
	return v
}

func on(has, re string, set func(p *parser, m []string)) rule {
	return rule{regexp.MustCompile(re), has, set}
}

var rules = slices.Concat(vllmRules, sglangRules, []rule{
	on("build: ", `^build: (\d+) \((\w+)\) with`, func(p *parser, m []string) { // llama.cpp
		first(&p.f.Engine, "llama.cpp")
		first(&p.f.Version, "b"+m[1]+"-"+m[2])
	}),
	on(" tokens of cache; loaded in ", `: [\w.-]+, \d+ parameters, (\w+), kernel (\w+), \d+ threads, context (\d+), (\d+) tokens of cache; loaded in ([\d.]+) s$`, func(p *parser, m []string) {
		first(&p.f.Engine, Own)
		p.kernel(m[1] + " " + m[2])
		p.f.MaxModelLen = int(integer(m[3]))
		p.tokens(m[4])
		firstOf(&p.f.LoadS, number(m[5]))
	}),
})

var vllmRules = []rule{
	on("vLLM API server version", `vLLM API server version (\S+)`, func(p *parser, m []string) {
		first(&p.f.Engine, VLLM)
		first(&p.f.Version, m[1])
	}),
	on("LLM engine (v", `Initializing an? (?:V1 )?LLM engine \(v([^)\s]+)\) with config`, func(p *parser, m []string) {
		first(&p.f.Engine, VLLM)
		first(&p.f.Version, m[1])
	}),
	on("LLM engine (v", `[ ,]quantization=([\w.-]+)`, func(p *parser, m []string) { first(&p.f.Quant, m[1]) }),
	on("LLM engine (v", `[ ,]max_seq_len=(\d+)`, func(p *parser, m []string) { p.f.MaxModelLen = int(integer(m[1])) }),
	on("LLM engine (v", `kv_cache_dtype=([\w.]+)`, func(p *parser, m []string) {
		if m[1] != "auto" {
			first(&p.f.KVDtype, m[1])
		}
	}),
	on("to store kv cache", `Using (\w+) data type to store kv cache`, func(p *parser, m []string) { first(&p.f.KVDtype, m[1]) }),
	on(" backend", `^Using (?:AttentionBackendEnum\.)?(\w+) (?:attention )?backend(?: on V\d engine| out of potential backends: |\.?$)`, func(p *parser, m []string) {
		first(&p.f.Attention, m[1])
	}),
	on("Flash Attention backend", `^Using (Flash Attention|XFormers|FlashInfer) backend`, func(p *parser, m []string) { first(&p.f.Attention, m[1]) }),
	on("Using Flash", `^Using FlashAttention version (\d)`, func(p *parser, m []string) {
		if p.f.Attention == "FLASH_ATTN" || p.f.Attention == "Flash Attention" {
			p.f.Attention += " (FA" + m[1] + ")"
		}
	}),
	on("for NVFP4 GEMM", `Using (\S+) for NVFP4 GEMM`, func(p *parser, m []string) { p.kernel(m[1]) }),
	on("Selected ", `^Selected (\w*Kernel\w*) for \w+`, func(p *parser, m []string) { p.kernel(m[1]) }),
	on("LinearKernel for", `^Using (\w+LinearKernel) for \w+`, func(p *parser, m []string) { p.kernel(m[1]) }),
	on("MoE backend", `^Using '?(\w+)'? (\w+) MoE backend`, func(p *parser, m []string) { p.kernel(m[2] + "-MoE:" + m[1]) }),
	on("# GPU blocks", `# (?:GPU|cuda|CUDA) blocks: (\d+)`, func(p *parser, m []string) { p.f.KVBlocks = integer(m[1]) }),
	on("block_size=", `[ ,]block_size=(\d+)`, func(p *parser, m []string) { p.block = integer(m[1]) }),
	on("GPU KV cache size", `GPU KV cache size: ([\d,]+) tokens`, func(p *parser, m []string) { p.tokens(m[1]) }),
	on("KV cache memory", `Available KV cache memory: ([\d.]+) GiB`, func(p *parser, m []string) { p.f.KVBytes = bytesOf(m[1]) }),
	on("Maximum concurrency", `Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x`, func(p *parser, m []string) {
		p.f.MaxModelLen, p.f.MaxConcurrency = int(integer(m[1])), number(m[2])
	}),
	on("Loading weights took", `Loading weights took ([\d.]+) seconds`, func(p *parser, m []string) { firstOf(&p.f.LoadS, number(m[1])) }),
	on("oading", `(?:Model loading|Loading model weights) took ([\d.]+) Gi?B(?: memory)?(?: and ([\d.]+) s)?`, func(p *parser, m []string) {
		p.f.WeightBytes = max(p.f.WeightBytes, bytesOf(m[1]))
		firstOf(&p.f.LoadS, number(m[2]))
	}),
	on("Dynamo bytecode", `Dynamo bytecode transform time: ([\d.]+) s`, func(p *parser, m []string) { p.dynamo = max(p.dynamo, number(m[1])) }),
	on("torch.compile t", `torch\.compile (?:takes|took) ([\d.]+) s`, func(p *parser, m []string) { p.compile = max(p.compile, number(m[1])) }),
	on("Graph capturing finished", `Graph capturing finished in ([\d.]+) secs?`, func(p *parser, m []string) { p.f.GraphS = max(p.f.GraphS, number(m[1])) }),
}

var sglangRules = []rule{
	on("server_args=", `^server_args=ServerArgs\(`, func(p *parser, _ []string) { first(&p.f.Engine, SGLang) }),
	on("server_args=", `[\s,({']attention_backend'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) { first(&p.f.Attention, m[1]) }),
	on("server_args=", `[\s,({']quantization'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) { first(&p.f.Quant, m[1]) }),
	on("server_args=", `[\s,({']kv_cache_dtype'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) {
		if m[1] != "auto" {
			first(&p.f.KVDtype, m[1])
		}
	}),
	on("server_args=", `[\s,({']moe_runner_backend'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) {
		if m[1] != "auto" {
			p.kernel("MoE:" + m[1])
		}
	}),
	on("server_args=", `[\s,({']fp4_gemm_(?:runner_)?backend'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) { p.gemm("FP4", m[1]) }),
	on("server_args=", `[\s,({']fp8_gemm_(?:runner_)?backend'?[=:] ?'([\w-]+)'`, func(p *parser, m []string) { p.gemm("FP8", m[1]) }),
	on("Attention backend not", `Attention backend not (?:explicitly specified|set)\. Use (\w+) backend by default`, func(p *parser, m []string) { first(&p.f.Attention, m[1]) }),
	on("Load weight end", `Load weight end\.(?: elapsed=([\d.]+) s,)?.*mem usage=([\d.]+) GB`, func(p *parser, m []string) {
		first(&p.f.Engine, SGLang)
		firstOf(&p.f.LoadS, number(m[1]))
		p.f.WeightBytes = max(p.f.WeightBytes, bytesOf(m[2]))
	}),
	on("Load weight end", `[ ,]quant=([\w-]+)`, func(p *parser, m []string) { first(&p.f.Quant, m[1]) }),
	on("Using KV cache dtype", `Using KV cache dtype: (?:torch\.)?(\w+)`, func(p *parser, m []string) { first(&p.f.KVDtype, m[1]) }),
	on("KV Cache is allocated", `KV Cache is allocated\..*?#tokens: (\d+), (?:K size: ([\d.]+) GB, V size: ([\d.]+) GB|KV size: ([\d.]+) GB)`, func(p *parser, m []string) {
		if p.f.KVBytes == 0 { // the first is the model's own, a draft model's comes after
			p.f.KVBytes = bytesOf(m[2]) + bytesOf(m[3]) + bytesOf(m[4])
			p.tokens(m[1])
		}
	}),
	on("max_total_num_tokens=", `max_total_num_tokens=(\d+),.*context_len(?:gth)?=(\d+)`, func(p *parser, m []string) {
		first(&p.f.Engine, SGLang)
		p.tokens(m[1])
		p.f.MaxModelLen = int(integer(m[2]))
	}),
	on("apture", `Capture (?:(?:target|draft) [\w ]+ )?(?:cuda|CUDA) graph end\. (?:Time elapsed: |elapsed=)([\d.]+) s`, func(p *parser, m []string) {
		p.f.GraphS = max(p.f.GraphS, number(m[1]))
	}),
}

// clip bounds a piece of foreign text for messages and rows.
func clip(s string) string {
	const most = 300
	s = oneLine(s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// oneLine drops line breaks and control characters.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, ansi.ReplaceAllString(s, ""))
	return strings.Join(strings.Fields(s), " ")
}
