package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/schema/schematest"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/load/simserver"
)

// The questions of the data set that modelMirror makes name their own answer, so
// that a server can be right on a known share of them.
var (
	askedRE  = regexp.MustCompile(`Question number (\d+): which of these is ([A-J])\?`)
	sumRE    = regexp.MustCompile(`Problem (\d+): what is (\d+) \+ 1\?`)
	judgedRE = regexp.MustCompile(`(?s)The OFFICIAL ANSWER: (.*?)\n\nEND OFFICIAL ANSWER\n\nBEGIN CANDIDATE ANSWER TO ASSESS\n\n(.*)\n\nEND CANDIDATE`)
	doubleRE = regexp.MustCompile(`Double the number (\d+) \((\w+)\)`)
	soughtRE = regexp.MustCompile(`What (?:is|are all) the special magic \w+ for (.+) mentioned in the provided text\?`)
	topicRE  = regexp.MustCompile(`Speak of topic (\d+) in`)
	optionRE = regexp.MustCompile(`(?m)^([A-D])\) right option of (\d+)$`)
)

func share(parts ...any) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return float64(h.Sum64()%1_000_000) / 1_000_000
}

// modelServer speaks the protocol of a model server that is right on a share of
// the questions of modelMirror.
func modelServer(model, salt string, right float64, slots int, delay time.Duration) *endpointtest.Server {
	return endpointtest.New(modelConfig(model, salt, right, slots, delay))
}

// modelEntry makes the test binary such a server, for containers.
const modelEntry = "__model-server"

// modelMain serves until it is killed, or until --die: then it dies once in the
// life of its /tmp, in the middle of that request.
func modelMain(args []string) int {
	fl := flag.NewFlagSet(modelEntry, flag.ContinueOnError)
	model, salt, host := fl.String("model", "m", ""), fl.String("salt", "", ""), fl.String("host", "127.0.0.1", "")
	hub := fl.String("vllm-weights", "", "a repository that has to be in the hub's cache, which has to be read-only")
	right, port, delay, die := fl.Float64("right", 1, ""), fl.Int("port", 0, ""), fl.Duration("delay", 0, ""), fl.Int("die", 0, "")
	step := fl.Duration("step", 0, "be a simulation that takes this long for a step, for what is measured of speed")
	swell := fl.Int("swell", 0, "use more and more memory once in the life of /tmp, from this request on")
	gates, at := fl.String("gates", "", "a folder beside the hub's cache: as long as its file NAME is there, the server waits before that"), fl.Int("gate-at", 10, "")
	if err := fl.Parse(args); err != nil {
		return 2
	}
	if err := seeded(*hub); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	shut := func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(os.Getenv("HF_HUB_CACHE")), *gates, name))
		return *gates != "" && err == nil
	}
	gate := func(name string) {
		for shut(name) {
			time.Sleep(50 * time.Millisecond)
		}
	}
	gate(gateLoad)
	_, err := os.Stat("/tmp/another")
	another := err == nil
	c := modelConfig(*model, *salt, *right, 8, *delay)
	c.Started = time.Now()
	if another {
		c.Version = "0.15.0"
	}
	c.Fault = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n >= *at {
			gate(gateAsk)
		}
		if n >= *at && !another && shut(gateSame) {
			_ = os.WriteFile("/tmp/another", nil, 0o600)
			os.Exit(1)
		}
		return false
	}
	if _, err := os.Stat("/tmp/swelled"); *swell > 0 && err != nil {
		c.Fault = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
			if n >= *at {
				gate(gateAsk)
			}
			if n >= *swell {
				_ = os.WriteFile("/tmp/swelled", nil, 0o600)
				for all := [][]byte{}; ; {
					all = append(all, bytes.Repeat([]byte{1}, 16<<20))
				}
			}
			return false
		}
	}
	if _, err := os.Stat("/tmp/died"); *die > 0 && err != nil {
		c.Fault = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
			if n >= *die {
				_ = os.WriteFile("/tmp/died", nil, 0o600)
				fmt.Println("dies at request", n)
				os.Exit(137)
			}
			return false
		}
	}
	if c.Listener, err = net.Listen("tcp", net.JoinHostPort(*host, fmt.Sprint(*port))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("serves", *model)
	if *step > 0 {
		sim := simserver.New(simserver.Config{Model: *model, StepBase: *step})
		go sim.Run(context.Background())
		srv := &http.Server{Handler: sim, ReadHeaderTimeout: time.Minute}
		go srv.Serve(c.Listener)
	} else {
		endpointtest.New(c)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	gate(gateEnd)
	return 0
}

// What a server with --gates waits before: loading, the answer to a request from
// --gate-at on, and its end. Where gateSame is shut it dies at that request and
// comes back as another version, once in the life of /tmp.
const gateLoad, gateAsk, gateEnd, gateSame = "load", "ask", "end", "same"

// seeded is what an engine needs to load a model without a network.
func seeded(repo string) error {
	if repo == "" {
		return nil
	}
	cache := os.Getenv("HF_HUB_CACHE")
	list, err := filepath.Glob(filepath.Join(cache, "models--"+strings.ReplaceAll(repo, "/", "--"), "snapshots", "*", "model.safetensors"))
	if err != nil || len(list) != 1 || os.Getenv("HF_HUB_OFFLINE") != "1" {
		return fmt.Errorf("no weights of %s in %s: %v %v", repo, cache, list, err)
	}
	if err := os.WriteFile(filepath.Join(cache, "mine"), nil, 0o600); err == nil {
		return fmt.Errorf("the cache %s can be written", cache)
	}
	_, err = os.ReadFile(list[0])
	return err
}

func modelConfig(model, salt string, right float64, slots int, delay time.Duration) endpointtest.Config {
	return endpointtest.Config{Model: model, Version: "0.14.0", Started: time.Unix(1_790_000_000, 0), KVDtype: "fp8", MaxLen: 32768, Slots: slots,
		Answer: func(a endpointtest.Asked) endpointtest.Reply {
			r := endpointtest.Reply{Delay: delay}
			var seed int64
			if a.Seed != nil {
				seed = *a.Seed
			}
			if m := sumRE.FindStringSubmatch(a.Prompt); m != nil {
				var n int
				fmt.Sscan(m[2], &n)
				if share(salt, m[1], seed) < right {
					n++
				}
				r.Text = fmt.Sprintf("The sum is \\boxed{%d}.", n)
				return r
			}
			if m := doubleRE.FindStringSubmatch(a.Prompt); m != nil {
				args := `{"number": ` + m[1] + `}`
				if share(salt, m[2], seed) >= right {
					args = `{"number": -1}`
				}
				r.Calls, r.Finish = []endpointtest.Call{{Name: "math_double", Arguments: args}}, "tool_calls"
				return r
			}
			if text, ok := recall(a.Prompt); ok {
				r.Text = text
				return r
			}
			if m := topicRE.FindStringSubmatch(a.Prompt); m != nil {
				r.Text = "Here are six words about it."
				if share(salt, m[1], seed) >= right {
					r.Text = "Here, with a comma, are the words."
				}
				return r
			}
			if m := optionRE.FindStringSubmatch(a.Prompt); m != nil {
				letter := m[1]
				if share(salt, m[2], seed) >= right {
					letter = string("ABCD"[(strings.Index("ABCD", letter)+1)%4])
				}
				r.Text = "By elimination.\n\nAnswer: " + letter
				return r
			}
			m := askedRE.FindAllStringSubmatch(a.Prompt, -1)
			if m == nil {
				r.Text = "What?"
				return r
			}
			last := m[len(m)-1] // examples come before
			letter := last[2]
			switch u := share(salt, last[1], seed); {
			case u < right:
			case u > 0.99:
				r.Text, r.Finish = "Let me think about it", "length"
				return r
			default:
				letter = string("ABCDEFGHIJ"[(strings.Index("ABCDEFGHIJ", letter)+1)%10])
			}
			r.Reasoning = "It says so."
			r.Text = fmt.Sprintf("It says so.\n\nAnswer: \\boxed{%s}", letter)
			if !a.Chat {
				r.Text = fmt.Sprintf(" The answer is (%s).\n\n", letter)
			}
			return r
		}}
}

// modelMirror makes a mirror with the models org/tiny-NVFP4 and org/tiny-FP8, and
// with data sets of the shape of MMLU-Pro and AIME.
func modelMirror(dir string, questions int) error {
	put := func(name string, body []byte) error {
		path := filepath.Join(dir, "huggingface.co", filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, body, 0o644)
	}
	for name, quant := range map[string]string{"tiny-NVFP4": "NVFP4", "tiny-FP8": "FP8"} {
		sha := strings.Repeat(map[string]string{"NVFP4": "a", "FP8": "b"}[quant], 40)
		body, err := json.Marshal(map[string]any{"id": "org/" + name, "sha": sha, "pipeline_tag": "text-generation",
			"siblings": []any{map[string]any{"rfilename": "config.json"}, map[string]any{"rfilename": "model.safetensors"}}})
		if err != nil {
			return err
		}
		if err := put("api/models/org/"+name, body); err != nil {
			return err
		}
		config := fmt.Sprintf(`{"architectures":["LlamaForCausalLM"],"model_type":"llama","torch_dtype":"bfloat16","quantization_config":{"quant_method":"modelopt","quant_algo":%q}}`, quant)
		if err := put("org/"+name+"/resolve/"+sha+"/config.json", []byte(config)); err != nil {
			return err
		}
	}
	for _, d := range catalog.All() {
		for i, f := range d.Data {
			var body []byte
			var err error
			switch {
			case d.Suite == "mmlu-pro":
				body, err = letters(questions, i == 1)
			case d.Suite == "aime-2025":
				body = sums(30)
			case d.Suite == "tool-calls":
				body = toolQuestions(40, i)
			case d.Suite == "ifbench":
				body, err = lengths(40)
			case d.Suite == "ruler":
				body, err = longData(i)
			case d.Suite == "ifeval":
				body = instructions(40)
			case d.Suite == "aa-lcr":
				body, err = readings(i == 2)
			case d.Suite == "gpqa-diamond":
				body = options(40)
			default:
				continue
			}
			if err == nil {
				err = put("datasets/"+f.Repo+"/resolve/"+f.Commit+"/"+f.Path, body)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// letters is a data set of the shape of MMLU-Pro.
func letters(n int, shots bool) ([]byte, error) {
	var ids []int64
	var question, answer, category, cot []string
	var options [][]string
	for i := range n {
		letter := string("ABCDEFGHIJ"[i%10])
		ids = append(ids, int64(i+1))
		question = append(question, fmt.Sprintf("Question number %d: which of these is %s?", i+1, letter))
		answer, category = append(answer, letter), append(category, []string{"math", "law"}[i%2])
		cot = append(cot, "A: Let's think step by step. It says so. The answer is ("+letter+").")
		options = append(options, []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"})
		if shots && i == 19 {
			break
		}
	}
	var b strings.Builder
	err := schematest.Write(&b, schematest.Column{Name: "question_id", Values: ids}, schematest.Column{Name: "question", Values: question}, schematest.Column{Name: "options", Values: options},
		schematest.Column{Name: "answer", Values: answer}, schematest.Column{Name: "cot_content", Values: cot}, schematest.Column{Name: "category", Values: category})
	return []byte(b.String()), err
}

// toolQuestions are the files of a data set of the shape of BFCL's: questions and
// answers of its first category, then of its second.
func toolQuestions(n, file int) []byte {
	var b strings.Builder
	for i := range n {
		id := fmt.Sprintf("%s_%d", []string{"simple", "multiple"}[file/2], i)
		if file%2 == 1 {
			fmt.Fprintf(&b, `{"id": %q, "ground_truth": [{"math.double": {"number": [%d]}}]}`+"\n", id, i)
			continue
		}
		fmt.Fprintf(&b, `{"id": %q, "question": [[{"role": "user", "content": "Double the number %d (%s)."}]], "function": [{"name": "math.double", "description": "Doubles.", `+
			`"parameters": {"type": "dict", "properties": {"number": {"type": "float", "description": "What to double."}}, "required": ["number"]}}]}`+"\n", id, i, id)
	}
	return []byte(b.String())
}

// lengths is a data set of the shape of IFBench's; the last of its prompts has an
// instruction that cannot be verified.
func lengths(n int) ([]byte, error) {
	var keys, prompts []string
	var ids [][]string
	var args [][]map[string]any
	for i := range n {
		keys, prompts = append(keys, fmt.Sprint(i)), append(prompts, fmt.Sprintf("Speak of topic %d in six words.", i))
		id := "count:word_count_range"
		if i == n-1 {
			id = "words:start_verb"
		}
		ids, args = append(ids, []string{id}), append(args, []map[string]any{{"min_words": 6.0, "max_words": 6.0}})
	}
	var b strings.Builder
	err := schematest.Write(&b, schematest.Column{Name: "key", Values: keys}, schematest.Column{Name: "prompt", Values: prompts},
		schematest.Column{Name: "instruction_id_list", Values: ids}, schematest.Column{Name: "kwargs", Values: args})
	return []byte(b.String()), err
}

// instructions is a data set of the shape of IFEval's.
func instructions(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"key": %d, "prompt": "Speak of topic %d in at least five words, without commas.", "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"], "kwargs": [{}, {"relation": "at least", "num_words": 5}]}`+"\n", 1000+i, i)
	}
	return []byte(b.String())
}

// options is a data set of the shape of GPQA's.
func options(n int) []byte {
	var b strings.Builder
	b.WriteString("Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,High-level domain\n")
	for i := range n {
		fmt.Fprintf(&b, "rec%03d,\"Experiment %d, which holds?\",right option of %d,first,second,third,%s\n", i, i, i, []string{"Physics", "Biology"}[i%2])
	}
	return []byte(b.String())
}

// longData is the i-th of small data sets of the shape of those that RULER draws
// on: essays, SQuAD and HotpotQA.
func longData(i int) ([]byte, error) {
	type list struct {
		Text []string `json:"text"`
	}
	type squad struct {
		Title    string `json:"title"`
		Context  string `json:"context"`
		Question string `json:"question"`
		Answers  list   `json:"answers"`
	}
	type paragraphs struct {
		Title     []string   `json:"title"`
		Sentences [][]string `json:"sentences"`
	}
	type hotpot struct {
		Question string     `json:"question"`
		Answer   string     `json:"answer"`
		Context  paragraphs `json:"context"`
	}
	var texts []list
	var essays []struct {
		Text string `json:"text"`
	}
	var a []squad
	var b []hotpot
	for n := range 300 {
		essays = append(essays, struct {
			Text string `json:"text"`
		}{fmt.Sprintf("Essay %d says little. It goes on. %s", n, strings.Repeat("And on it goes. ", n%7))})
		texts = append(texts, list{[]string{fmt.Sprint("city", n)}})
		a = append(a, squad{fmt.Sprint("Article ", n/10), fmt.Sprintf("The capital of land %d is city%d. %s", n, n, strings.Repeat("It is old. ", 20)), fmt.Sprintf("What is the capital of land %d?", n), texts[n]})
		p := paragraphs{}
		for j := range 10 {
			p.Title = append(p.Title, fmt.Sprint("Town ", n*10+j))
			p.Sentences = append(p.Sentences, []string{"It lies somewhere.", fmt.Sprintf(" Its founder is founder%d.", n*10+j)})
		}
		b = append(b, hotpot{fmt.Sprintf("Who founded Town %d?", n*10), fmt.Sprintf("founder%d", n*10), p})
	}
	var out bytes.Buffer
	var err error
	switch i {
	case 0:
		err = schematest.WriteRows(&out, essays)
	case 1:
		err = schematest.WriteRows(&out, a)
	case 2:
		err = schematest.WriteRows(&out, b)
	}
	return out.Bytes(), err
}

// readings is a data set of the shape of AA-LCR's: two questions over two sets of
// documents, with the counts of their tokens by tiktoken, or the documents.
func readings(documents bool) ([]byte, error) {
	if !documents {
		return []byte("document_category,document_set_id,question_id,question,answer,data_source_filenames,input_tokens\n" +
			"Legal,set1,1,What is the code of set 1?,code-1,EU’s.txt;b.txt,71\n" +
			"Legal,set2,2,What is the code of set 2?,code-2,a.txt,52\n"), nil
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range map[string]string{"lcr/Legal/set1/EU’s.txt": "The code\r\nis in the next one.\r\n", "lcr/Legal/set1/b.txt": "It is code-1.", "lcr/Legal/set2/a.txt": "It is code-2."} {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, NonUTF8: true})
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// recall answers questions over long texts that are in the form of RULER's: needles
// always, capitals and founders too, and nothing else.
func recall(prompt string) (string, bool) {
	if m := soughtRE.FindStringSubmatch(prompt); m != nil {
		var out []string
		for _, key := range regexp.MustCompile(`, and |, `).Split(m[1], -1) {
			for _, v := range regexp.MustCompile(`for `+regexp.QuoteMeta(key)+` is: (\S+)\.`).FindAllStringSubmatch(prompt, -1) {
				out = append(out, v[1])
			}
		}
		return " " + strings.Join(out, ", "), true
	}
	if m := judgedRE.FindStringSubmatch(prompt); m != nil {
		verdict := "INCORRECT"
		if strings.Contains(m[2], m[1]) {
			verdict = "CORRECT"
		}
		return fmt.Sprintf("```json\n{\"verdict\": %q}\n```", verdict), true
	}
	if m := regexp.MustCompile(`START QUESTION\n\nWhat is the code of set (\d+)\?\n\nEND QUESTION\n$`).FindStringSubmatch(prompt); m != nil {
		if !strings.Contains(prompt, "It is code-"+m[1]+".") {
			return "There is none.", true
		}
		return "By the last document it is code-1.", true // right for the first set only
	}
	for ask, say := range map[string]string{`What is the capital of land (\d+)\?$`: "city", `Who founded Town (\d+)\?$`: "founder"} {
		if m := regexp.MustCompile(ask).FindStringSubmatch(prompt); m != nil {
			return " " + say + m[1], true
		}
	}
	return " I cannot tell.", strings.HasPrefix(prompt, "Memorize and track") || strings.HasPrefix(prompt, "Below is a numbered") || strings.HasPrefix(prompt, "Read the following coded")
}

// sums is a data set of the shape of AIME's.
func sums(n int) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"id\":\"%d\",\"problem\":\"Problem %d: what is %d + 1?\",\"answer\":\"%d\"}\n", i, i, 7*i, 7*i+1)
	}
	return []byte(b.String())
}
