package server

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// UserError is what the user can mend before anything is started.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// StartError says why a server did not come up.
type StartError struct {
	Arm     string
	Command string
	How     string   // "ended with status 1 after 12s, while it loaded"
	Cause   string   // in words, "" where the log does not tell
	Lines   []string // of the log, those that tell
	Log     string   // its file
	Fix     string
	port    bool // another process took the port
}

func (e *StartError) Error() string {
	s := fmt.Sprintf("the server of arm %s %s", e.Arm, e.How)
	if e.Cause != "" {
		s += ": " + e.Cause
	}
	for _, l := range e.Lines {
		s += "\n  | " + l
	}
	return s + fmt.Sprintf("\n  it was started by: %s\n  its log is %s", e.Command, e.Log)
}

// UserError returns the fix.
func (e *StartError) UserError() string { return e.Fix }

// failure is a way in which servers fail, as their logs tell it.
type failure struct {
	re    *regexp.Regexp
	cause string
	fix   func(m []string) string
}

func say(s string) func([]string) string { return func([]string) string { return s } }

func fails(re, cause string, fix func([]string) string) failure {
	return failure{regexp.MustCompile(re), cause, fix}
}

// failures are tried in their order: what comes first is closer to the cause.
var failures = []failure{
	fails(`(?i)address already in use|\[Errno 98\]`, "its port was taken by another process in the meantime", say("run it again; the port is chosen anew")),
	fails(`Free memory on device.*\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization \(([\d.]+)`, "another process holds memory of the GPU", func(m []string) string {
		return fmt.Sprintf("end what else runs on the GPU (`nvidia-smi`), or serve with less: --gpu-memory-utilization below %s", m[3])
	}),
	fails(`To serve at least one request with the model\S* max seq len \(?(\d+)\)?(?:.*estimated maximum model length is (\d+))?`, "the cache has no room for one sequence of the full length", func(m []string) string {
		if m[2] != "" {
			return "serve with --max-model-len " + m[2] + " or less, in all arms alike, or with more GPUs"
		}
		return "serve with a smaller --max-model-len, in all arms alike, or with more GPUs"
	}),
	fails(`No available memory for the cache blocks|Not enough memory.*mem-fraction-static|Not enough memory to allocate KV cache`, "no GPU memory is left for the cache", say("serve with more GPUs (tensor parallelism), with a higher --gpu-memory-utilization or --mem-fraction-static, or a smaller model")),
	fails(`(?i)CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|cudaErrorMemoryAllocation|HIP out of memory`, "the GPU's memory does not suffice", say("serve with more GPUs (--tensor-parallel-size), a smaller --max-model-len or --max-num-seqs, or a lower --gpu-memory-utilization, in all arms alike; `repromill estimate` says what fits")),
	fails(`(?:quantization method|Quantization method) (\S+) is not supported for the current GPU\. Minimum capability: (\d+)\. Current capability: (\d+)`, "this GPU cannot compute in the checkpoint's format", func(m []string) string {
		return fmt.Sprintf("serve %s on a GPU of compute capability %s or later; this one has %s", m[1], capability(m[2]), capability(m[3]))
	}),
	fails(`(?i)unknown quantization method:? ?(\S*)|invalid quantization method|Quantization (?:method|type) \S+ (?:is )?not supported|Unknown quantization type`, "this version of the engine does not know the checkpoint's format", say("use a newer version of the engine, or one built for this GPU")),
	fails(`No valid NVFP4 GEMM backend|Unsupported FP8|no kernel image is available for execution on the device|Failed to find a kernel that can implement|not compiled for (?:sm|this)`, "the engine has no kernel of this format for this GPU", say("use a version of the engine built for this GPU; `nvidia-smi` names it")),
	fails(`(?i)GatedRepoError|Access to model .* is restricted|401 Client Error|403 Client Error|You are trying to access a gated repo`, "the hub does not give the model without permission", say("accept the model's terms on the hub, and set HF_TOKEN")),
	fails(`is not a local folder and is not a valid model identifier|RepositoryNotFoundError|404 Client Error|Repository Not Found|RevisionNotFoundError|is not a valid git identifier`, "the model or its revision is not to be found", say("check the name and the revision; without a network, give the folder that holds the model")),
	fails(`(?i)LocalEntryNotFoundError|couldn't connect to 'https?://\S+'|We couldn't connect to|Failed to resolve '|Temporary failure in name resolution|OfflineModeIsEnabled`, "the model is not on this machine and the hub cannot be reached", say("fetch it beforehand (`hf download`), and check HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE")),
	fails(`Cannot find any model weights with|does not appear to have a file named|No such file or directory: '[^']*(?:safetensors|config\.json|\.bin|\.gguf)|Error no file named|Can't load (?:the )?(?:configuration|tokenizer|config)`, "files of the model are missing", say("fetch the model again; an interrupted download leaves some out")),
	fails(`SafetensorError|MetadataIncompleteBuffer|HeaderTooLarge|InvalidHeaderDeserialization`, "a file of weights is damaged", say("fetch the model again; `repromill inspect MODEL` finds the file")),
	fails(`(?i)requires you to execute the (?:configuration|modeling|custom code) file|trust_remote_code=True|contains custom code which must be executed`, "the model brings code of its own", say("if you trust it, serve with --trust-remote-code, in all arms alike")),
	fails(`Model architectures? \[?'?([\w', ]+)'?\]? (?:are|is) not supported|does not recognize this architecture|Unsupported architecture|unknown model architecture`, "this version of the engine does not know the model's architecture", say("use a newer version of the engine (and of transformers)")),
	fails(`must be divisible by tensor[ _]parallel|is not divisible by (?:weight quantization|tensor parallel)|not divisible by .*tp`, "the model cannot be divided over that many GPUs", say("choose another --tensor-parallel-size, one that divides its heads and blocks")),
	fails(`is greater than the derived max_model_len|max_model_len .* is larger than|exceeds the maximum (?:context|model) length`, "the length asked for is more than the model has", say("serve with a smaller --max-model-len")),
	fails(`No CUDA GPUs are available|Found no NVIDIA driver|CUDA driver version is insufficient|Failed to infer device type|no CUDA-capable device|libcuda\.so`, "the engine sees no GPU that it can use", say("check `nvidia-smi` and that the driver is recent enough for the engine's CUDA")),
	fails(`(?i)No space left on device|Disk quota exceeded`, "the disk is full", say("free some space, or set HF_HOME and VLLM_CACHE_ROOT to another disk")),
	fails(`Bus error|/dev/shm.*(?:No space|too small)|insufficient shared memory`, "the shared memory does not suffice", say("give it more: for a container --shm-size 16g or --ipc host")),
	fails(`ModuleNotFoundError: No module named '?(\w[\w.]*)|No module named (\w[\w.]*)`, "a Python package is missing", func(m []string) string {
		return fmt.Sprintf("install %s for the Python that serves, or name another by its path in --server", m[1]+m[2])
	}),
	fails(`requires .?(\w+).{0,3}[.,] You can install it with|requires the following packages|Missing dependencies for`, "a Python package is missing", say("install what the line names for the Python that serves")),
	fails(`error: (?:unrecognized arguments|argument|the following arguments are required).*`, "the engine does not understand its arguments", say("compare them with the engine's version: vllm serve --help, python3 -m sglang.launch_server --help")),
	fails(`Error: No such option|Got unexpected extra argument|No such command`, "the server does not understand its arguments", say("compare them with the program's --help")),
	fails(`NCCL error|ncclInternalError|ncclUnhandledCudaError|ncclSystemError`, "the GPUs cannot talk to each other", say("NCCL_DEBUG=INFO tells more; try --disable-custom-all-reduce, or fewer GPUs")),
	fails(`\bKilled\b|SIGKILL|signal 9\b|oom-kill`, "it was killed, which is most often for want of memory of the machine", say("give the machine more memory, or load fewer models at once")),
}

// capability writes 100 as 10.0.
func capability(digits string) string {
	return digits[:len(digits)-1] + "." + digits[len(digits)-1:]
}

// noise are lines that say only that something failed before.
var noise = regexp.MustCompile(`Engine core initialization failed|See root cause above|EngineCore failed to start|WorkerProc initialization failed|Traceback \(most recent call last\)|resource_tracker|leaked (?:shared_memory|semaphore)|destroy_process_group|Received sigquit from a child process`)

// exception is the last line of a Python traceback, or what programs say in its
// place.
var exception = regexp.MustCompile(`^(?:[\w.]+(?:Error|Exception|Exit|Interrupt)\b|[Ff]atal|FATAL|ERROR|[Ee]rror|panic)[:\s]`)

// explain finds in a log why a server failed: the cause in words with its fix
// where it is known, and the lines that tell.
func explain(r io.Reader) (cause, fix string, tell []string) {
	best := len(failures)
	var match []string
	var bestLine string
	var errs, last []string
	_ = eachLine(r, func(s string) { // a log that cannot be read tells nothing
		l := readLine(s).text
		if l == "" {
			return
		}
		if last = append(last, clip(l)); len(last) > 3 {
			last = last[1:]
		}
		if noise.MatchString(l) {
			return
		}
		for i := range failures[:best] {
			if m := failures[i].re.FindStringSubmatch(l); m != nil {
				best, match, bestLine = i, m, clip(l)
				break
			}
		}
		if exception.MatchString(l) {
			if errs = append(errs, clip(l)); len(errs) > 3 {
				errs = errs[1:]
			}
		}
	})
	if best < len(failures) {
		f := failures[best]
		return f.cause, f.fix(match), []string{bestLine}
	}
	if len(errs) > 0 {
		return "", "", slices.Compact(errs)
	}
	return "", "", last
}

// tailBytes is how much of the end of a log is searched for why a server failed.
const tailBytes = 2 << 20

// startError makes the error of a server that did not come up.
func startError(arm string, c *command, log string, from int64, how string) *StartError {
	e := &StartError{Arm: arm, Command: clip(shown(c)), How: how, Log: log}
	if f, err := os.Open(log); err == nil {
		defer f.Close()
		if st, err := f.Stat(); err == nil {
			from = max(from, st.Size()-tailBytes)
			_, _ = f.Seek(from, io.SeekStart)
		}
		e.Cause, e.Fix, e.Lines = explain(f)
	}
	e.port = e.Cause == failures[0].cause
	if e.Fix == "" {
		e.Fix = "read the log, and try the command by itself"
	}
	return e
}

// shown is a command as a person would type it, its environment first. Values
// that may be secrets are left out.
func shown(c *command) string {
	var words []string
	for k, v := range c.env {
		if secret.MatchString(k) {
			v = "…"
		}
		words = append(words, k+"="+quote([]string{v}))
	}
	slices.Sort(words)
	if c.image != "" {
		words = append(words, "docker run "+c.image)
	}
	argv := slices.Clone(c.argv)
	for i := range argv {
		if i > 0 && secret.MatchString(argv[i-1]) && strings.HasPrefix(argv[i-1], "-") {
			argv[i] = "…"
		} else if name, _, ok := strings.Cut(argv[i], "="); ok && secret.MatchString(name) {
			argv[i] = name + "=…"
		}
	}
	return strings.Join(append(words, quote(argv)), " ")
}

var secret = regexp.MustCompile(`(?i)(?:api[-_]?key|token|secret|password)$`)

func seconds(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}
