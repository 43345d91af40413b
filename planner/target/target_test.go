package target

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// accepted maps what is pasted to what it is. URL is left out where it is
// https://arxiv.org/abs/ID+Version.
var accepted = map[string]Target{
	// Bare arXiv ids.
	"2604.08075":                              {Kind: ArXiv, ID: "2604.08075"},
	"2604.08075v2":                            {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"2604.08075V2":                            {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"2604.08075v12":                           {Kind: ArXiv, ID: "2604.08075", Version: "v12"},
	"  2604.08075\n":                          {Kind: ArXiv, ID: "2604.08075"},
	"<2604.08075>":                            {Kind: ArXiv, ID: "2604.08075"},
	`"2604.08075"`:                            {Kind: ArXiv, ID: "2604.08075"},
	"'2604.08075v1'":                          {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"`2604.08075`":                            {Kind: ArXiv, ID: "2604.08075"},
	"2604.08075.pdf":                          {Kind: ArXiv, ID: "2604.08075"},
	"2604.08075v2.pdf":                        {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"2604.08075.tar.gz":                       {Kind: ArXiv, ID: "2604.08075"},
	"2604.08075.md":                           {Kind: ArXiv, ID: "2604.08075"},
	"arXiv:2604.08075":                        {Kind: ArXiv, ID: "2604.08075"},
	"arxiv:2604.08075v2":                      {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"ARXIV: 2604.08075":                       {Kind: ArXiv, ID: "2604.08075"},
	"arXiv:2604.08075v2 [cs.LG]":              {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"arXiv:hep-th/9901001v3 [hep-th]":         {Kind: ArXiv, ID: "hep-th/9901001", Version: "v3"},
	"2604.08075v2 [cs.LG]":                    {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"arXiv:2604.08075v1  [cs.DC]  9 Apr 2026": {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"2410.12345":                              {Kind: ArXiv, ID: "2410.12345"},
	"1706.03762":                              {Kind: ArXiv, ID: "1706.03762"},
	"0704.0001":                               {Kind: ArXiv, ID: "0704.0001"},
	"1412.9999v3":                             {Kind: ArXiv, ID: "1412.9999", Version: "v3"},
	"1501.00001":                              {Kind: ArXiv, ID: "1501.00001"},
	"hep-th/9901001":                          {Kind: ArXiv, ID: "hep-th/9901001"},
	"hep-th/9901001v3":                        {Kind: ArXiv, ID: "hep-th/9901001", Version: "v3"},
	"Hep-Th/9901001":                          {Kind: ArXiv, ID: "hep-th/9901001"},
	"hep-th//9901001":                         {Kind: ArXiv, ID: "hep-th/9901001"},
	"math.GT/0309136":                         {Kind: ArXiv, ID: "math/0309136"},
	"math.CA/0611800v2":                       {Kind: ArXiv, ID: "math/0611800", Version: "v2"},
	"cond-mat.mes-hall/0102001":               {Kind: ArXiv, ID: "cond-mat/0102001"},
	"cs/0703001":                              {Kind: ArXiv, ID: "cs/0703001"},
	"math/9201239":                            {Kind: ArXiv, ID: "math/9201239"},
	"hep-th/9901001.ps.gz":                    {Kind: ArXiv, ID: "hep-th/9901001"},

	// arxiv.org and its twins.
	"https://arxiv.org/abs/2604.08075":                                                   {Kind: ArXiv, ID: "2604.08075"},
	"http://arxiv.org/abs/2604.08075v2":                                                  {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"arxiv.org/abs/2604.08075":                                                           {Kind: ArXiv, ID: "2604.08075"},
	"ARXIV.ORG/abs/2604.08075":                                                           {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org:443/abs/2604.08075":                                               {Kind: ArXiv, ID: "2604.08075"},
	"arxiv.org:443/abs/2604.08075":                                                       {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org./abs/2604.08075":                                                  {Kind: ArXiv, ID: "2604.08075"},
	"https://www.arxiv.org/abs/2604.08075":                                               {Kind: ArXiv, ID: "2604.08075"},
	"https://export.arxiv.org/abs/2604.08075v1":                                          {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"http://cn.arxiv.org/abs/2604.08075":                                                 {Kind: ArXiv, ID: "2604.08075"},
	"http://de.arxiv.org/pdf/2604.08075":                                                 {Kind: ArXiv, ID: "2604.08075"},
	"http://xxx.lanl.gov/abs/hep-th/9901001":                                             {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://browse.arxiv.org/html/2604.08075v1":                                         {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://arxiv.org/abs/2604.08075?context=cs":                                        {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/abs/2604.08075?fmt=txt":                                           {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/abs/2604.08075/":                                                  {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org//abs//2604.08075":                                                 {Kind: ArXiv, ID: "2604.08075"},
	"<https://arxiv.org/abs/2604.08075>":                                                 {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/abs/arXiv:2604.08075":                                             {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/2604.08075":                                                       {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/abs/hep-th/9901001":                                               {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://arxiv.org/abs/hep-th%2F9901001":                                             {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://arxiv.org/hep-th/9901001v2":                                                 {Kind: ArXiv, ID: "hep-th/9901001", Version: "v2"},
	"https://arxiv.org/pdf/hep-th/9901001v3":                                             {Kind: ArXiv, ID: "hep-th/9901001", Version: "v3"},
	"https://arxiv.org/pdf/hep-th/9901001v3.pdf":                                         {Kind: ArXiv, ID: "hep-th/9901001", Version: "v3"},
	"https://arxiv.org/pdf/cond-mat.mes-hall/0102001":                                    {Kind: ArXiv, ID: "cond-mat/0102001"},
	"https://arxiv.org/pdf/2604.08075":                                                   {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/pdf/2604.08075.pdf":                                               {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/pdf/2604.08075v2.pdf#page=3":                                      {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"https://arxiv.org/html/2604.08075":                                                  {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/html/2604.08075v1/#S3.SS1":                                        {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://arxiv.org/html/2604.08075v1/x1.png":                                         {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://arxiv.org/format/2604.08075":                                                {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/src/2604.08075v1/anc/table.csv":                                   {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://arxiv.org/src/2604.08075":                                                   {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/e-print/2604.08075v1":                                             {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://arxiv.org/ps/hep-th/9901001":                                                {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://arxiv.org/dvi/hep-th/9901001":                                               {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://arxiv.org/bibtex/2604.08075":                                                {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/tb/2604.08075":                                                    {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/refs/2604.08075":                                                  {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/cits/2604.08075":                                                  {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/audio/2604.08075":                                                 {Kind: ArXiv, ID: "2604.08075"},
	"https://arxiv.org/ftp/arxiv/papers/0704/0704.0001.pdf":                              {Kind: ArXiv, ID: "0704.0001"},
	"https://arxiv.org/ftp/hep-th/papers/9901/9901001.pdf":                               {Kind: ArXiv, ID: "hep-th/9901001"},
	"http://export.arxiv.org/api/query?id_list=2604.08075v2":                             {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"https://export.arxiv.org/api/query?id_list=hep-th/9901001,2604.08075&max_results=2": {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://autoarxiv.org/abs/2604.08075":                                               {Kind: ArXiv, ID: "2604.08075"},
	"autoarxiv.org/abs/2604.08075":                                                       {Kind: ArXiv, ID: "2604.08075"},
	"https://autoarxiv.org/pdf/2604.08075v1.pdf":                                         {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"http://www.autoarxiv.org/html/2604.08075v1":                                         {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://ar5iv.org/abs/2604.08075":                                                   {Kind: ArXiv, ID: "2604.08075"},
	"https://ar5iv.org/html/hep-th/9901001":                                              {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://ar5iv.labs.arxiv.org/html/2604.08075":                                       {Kind: ArXiv, ID: "2604.08075"},

	// DOIs.
	"https://doi.org/10.48550/arXiv.2604.08075":    {Kind: ArXiv, ID: "2604.08075"},
	"https://dx.doi.org/10.48550/arxiv.2604.08075": {Kind: ArXiv, ID: "2604.08075"},
	"doi.org/10.48550/ARXIV.2604.08075":            {Kind: ArXiv, ID: "2604.08075"},
	"https://doi.org/10.48550%2FarXiv.2604.08075":  {Kind: ArXiv, ID: "2604.08075"},
	"10.48550/arXiv.2604.08075":                    {Kind: ArXiv, ID: "2604.08075"},
	"10.48550/arXiv.hep-th/9901001":                {Kind: ArXiv, ID: "hep-th/9901001"},
	"doi:10.48550/arXiv.2410.12345":                {Kind: ArXiv, ID: "2410.12345"},
	"DOI: 10.48550/arXiv.2410.12345":               {Kind: ArXiv, ID: "2410.12345"},

	// Sites about arXiv papers, and the fallback for any other.
	"https://www.alphaxiv.org/abs/2604.08075":                                {Kind: ArXiv, ID: "2604.08075"},
	"https://alphaxiv.org/abs/2604.08075v2":                                  {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"alphaxiv.org/overview/2604.08075.md":                                    {Kind: ArXiv, ID: "2604.08075"},
	"https://www.alphaxiv.org/pdf/2604.08075v1":                              {Kind: ArXiv, ID: "2604.08075", Version: "v1"},
	"https://www.alphaxiv.org/resources/2604.08075":                          {Kind: ArXiv, ID: "2604.08075"},
	"https://www.alphaxiv.org/fr/overview/2604.08075?x=1":                    {Kind: ArXiv, ID: "2604.08075"},
	"https://www.alphaxiv.org/cs/overview/2604.08075":                        {Kind: ArXiv, ID: "2604.08075"},
	"https://www.alphaxiv.org/abs/hep-th/9901001":                            {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://api.alphaxiv.org/papers/v3/2604.08075":                          {Kind: ArXiv, ID: "2604.08075"},
	"https://www.arxiv-vanity.com/papers/2604.08075/":                        {Kind: ArXiv, ID: "2604.08075"},
	"https://huggingface.co/papers/2604.08075":                               {Kind: ArXiv, ID: "2604.08075"},
	"https://huggingface.co/papers/2604.08075.md":                            {Kind: ArXiv, ID: "2604.08075"},
	"hf.co/papers/2604.08075":                                                {Kind: ArXiv, ID: "2604.08075"},
	"https://huggingface.co/api/papers/2604.08075":                           {Kind: ArXiv, ID: "2604.08075"},
	"https://huggingface.co/api/arxiv/2604.08075/repos":                      {Kind: ArXiv, ID: "2604.08075"},
	"https://www.semanticscholar.org/arxiv/2604.08075":                       {Kind: ArXiv, ID: "2604.08075"},
	"https://api.semanticscholar.org/arXiv:2604.08075":                       {Kind: ArXiv, ID: "2604.08075"},
	"https://scirate.com/arxiv/2604.08075":                                   {Kind: ArXiv, ID: "2604.08075"},
	"https://scirate.com/arxiv/quant-ph/0205133":                             {Kind: ArXiv, ID: "quant-ph/0205133"},
	"https://www.emergentmind.com/papers/2604.08075":                         {Kind: ArXiv, ID: "2604.08075"},
	"https://www.catalyzex.com/api/code?src=arxiv&paper_arxiv_id=2604.08075": {Kind: ArXiv, ID: "2604.08075"},
	"https://evil.example.com/2604.08075":                                    {Kind: ArXiv, ID: "2604.08075"},
	"https://evil.example.com/?id=2604.08075v2":                              {Kind: ArXiv, ID: "2604.08075", Version: "v2"},
	"https://reader.example.com/view?universalId=2604.08075":                 {Kind: ArXiv, ID: "2604.08075"},
	"https://reader.example.com/view?arxivId=hep-th/9901001":                 {Kind: ArXiv, ID: "hep-th/9901001"},
	"https://arxiv.org.evil.example.com/abs/2604.08075":                      {Kind: ArXiv, ID: "2604.08075"},
	"https://mirror.example.com/abs/hep-th/9901001v1":                        {Kind: ArXiv, ID: "hep-th/9901001", Version: "v1"},
	"https://mirror.example.com/2604.08075/2604.08075v3.pdf":                 {Kind: ArXiv, ID: "2604.08075", Version: "v3"},
	"reader.example.com/docs/arxiv/2604.08075":                               {Kind: ArXiv, ID: "2604.08075"},

	// The hub.
	"gpt2":                             {Kind: HFModel, ID: "gpt2", URL: "https://huggingface.co/gpt2"},
	"bert-base-uncased":                {Kind: HFModel, ID: "bert-base-uncased", URL: "https://huggingface.co/bert-base-uncased"},
	"gpt2@main":                        {Kind: HFModel, ID: "gpt2", Revision: "main", URL: "https://huggingface.co/gpt2/tree/main"},
	"Qwen/Qwen3-8B":                    {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"Qwen/Qwen3-8B/":                   {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"nvidia/Qwen3.6-27B-NVFP4":         {Kind: HFModel, ID: "nvidia/Qwen3.6-27B-NVFP4", URL: "https://huggingface.co/nvidia/Qwen3.6-27B-NVFP4"},
	"meta-llama/Llama-3.1-8B-Instruct": {Kind: HFModel, ID: "meta-llama/Llama-3.1-8B-Instruct", URL: "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct"},
	"org/20240131-base":                {Kind: HFModel, ID: "org/20240131-base", URL: "https://huggingface.co/org/20240131-base"},
	"models/org/name":                  {Kind: HFModel, ID: "org/name", URL: "https://huggingface.co/org/name"},
	"org/name@v1.0":                    {Kind: HFModel, ID: "org/name", Revision: "v1.0", URL: "https://huggingface.co/org/name/tree/v1.0"},
	"org/name@refs/pr/3":               {Kind: HFModel, ID: "org/name", Revision: "refs/pr/3", URL: "https://huggingface.co/org/name/tree/refs%2Fpr%2F3"},
	"org/name@refs%2Fpr%2F3":           {Kind: HFModel, ID: "org/name", Revision: "refs/pr/3", URL: "https://huggingface.co/org/name/tree/refs%2Fpr%2F3"},
	"org/name@0123456789abcdef0123456789abcdef01234567":                               {Kind: HFModel, ID: "org/name", Revision: "0123456789abcdef0123456789abcdef01234567", URL: "https://huggingface.co/org/name/tree/0123456789abcdef0123456789abcdef01234567"},
	"https://huggingface.co/gpt2":                                                     {Kind: HFModel, ID: "gpt2", URL: "https://huggingface.co/gpt2"},
	"https://huggingface.co/gpt2/resolve/main/config.json":                            {Kind: HFModel, ID: "gpt2", Revision: "main", Path: "config.json", URL: "https://huggingface.co/gpt2/tree/main/config.json"},
	"https://huggingface.co/Qwen/Qwen3-8B":                                            {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"https://hf.co/Qwen/Qwen3-8B?library=vllm":                                        {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"https://www.huggingface.co/Qwen/Qwen3-8B#use":                                    {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"huggingface.co/Qwen/Qwen3-8B":                                                    {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"https://hf-mirror.com/Qwen/Qwen3-8B":                                             {Kind: HFModel, ID: "Qwen/Qwen3-8B", URL: "https://huggingface.co/Qwen/Qwen3-8B"},
	"https://huggingface.co/org/name/tree/main":                                       {Kind: HFModel, ID: "org/name", Revision: "main", URL: "https://huggingface.co/org/name/tree/main"},
	"https://huggingface.co/org/name/tree/refs%2Fpr%2F3":                              {Kind: HFModel, ID: "org/name", Revision: "refs/pr/3", URL: "https://huggingface.co/org/name/tree/refs%2Fpr%2F3"},
	"https://huggingface.co/org/name/blob/refs/pr/3/README.md":                        {Kind: HFModel, ID: "org/name", Revision: "refs/pr/3", Path: "README.md", URL: "https://huggingface.co/org/name/tree/refs%2Fpr%2F3/README.md"},
	"https://huggingface.co/org/name/resolve/main/a/b%20c.txt?download=true":          {Kind: HFModel, ID: "org/name", Revision: "main", Path: "a/b c.txt", URL: "https://huggingface.co/org/name/tree/main/a/b%20c.txt"},
	"https://huggingface.co/org/name/raw/v2/config.json":                              {Kind: HFModel, ID: "org/name", Revision: "v2", Path: "config.json", URL: "https://huggingface.co/org/name/tree/v2/config.json"},
	"https://huggingface.co/org/name/blame/main/x.py":                                 {Kind: HFModel, ID: "org/name", Revision: "main", Path: "x.py", URL: "https://huggingface.co/org/name/tree/main/x.py"},
	"https://huggingface.co/org/name/commit/0123456789abcdef0123456789abcdef01234567": {Kind: HFModel, ID: "org/name", Revision: "0123456789abcdef0123456789abcdef01234567", URL: "https://huggingface.co/org/name/tree/0123456789abcdef0123456789abcdef01234567"},
	"https://huggingface.co/api/models/org/name":                                      {Kind: HFModel, ID: "org/name", URL: "https://huggingface.co/org/name"},
	"https://huggingface.co/api/models/org/name/revision/main":                        {Kind: HFModel, ID: "org/name", Revision: "main", URL: "https://huggingface.co/org/name/tree/main"},
	"hf://org/name":                    {Kind: HFModel, ID: "org/name", URL: "https://huggingface.co/org/name"},
	"hf://gpt2":                        {Kind: HFModel, ID: "gpt2", URL: "https://huggingface.co/gpt2"},
	"hf://models/org/name@v1/a/b.json": {Kind: HFModel, ID: "org/name", Revision: "v1", Path: "a/b.json", URL: "https://huggingface.co/org/name/tree/v1/a/b.json"},
	"hf://org/name@refs/pr/7/x":        {Kind: HFModel, ID: "org/name", Revision: "refs/pr/7", Path: "x", URL: "https://huggingface.co/org/name/tree/refs%2Fpr%2F7/x"},
	"hf://org/name/config.json":        {Kind: HFModel, ID: "org/name", Revision: "main", Path: "config.json", URL: "https://huggingface.co/org/name/tree/main/config.json"},
	"hf://org/9609001":                 {Kind: HFModel, ID: "org/9609001", URL: "https://huggingface.co/org/9609001"},
	"hf://1706.3762":                   {Kind: HFModel, ID: "1706.3762", URL: "https://huggingface.co/1706.3762"},
	"HF://datasets/squad":              {Kind: HFDataset, ID: "squad", URL: "https://huggingface.co/datasets/squad"},
	"datasets/TIGER-Lab/MMLU-Pro":      {Kind: HFDataset, ID: "TIGER-Lab/MMLU-Pro", URL: "https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro"},
	"https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro/tree/main/data": {Kind: HFDataset, ID: "TIGER-Lab/MMLU-Pro", Revision: "main", Path: "data", URL: "https://huggingface.co/datasets/TIGER-Lab/MMLU-Pro/tree/main/data"},
	"hf://datasets/org/name@refs/convert/parquet/a.parquet":             {Kind: HFDataset, ID: "org/name", Revision: "refs/convert/parquet", Path: "a.parquet", URL: "https://huggingface.co/datasets/org/name/tree/refs%2Fconvert%2Fparquet/a.parquet"},
	"https://huggingface.co/spaces/org/demo":                            {Kind: HFSpace, ID: "org/demo", URL: "https://huggingface.co/spaces/org/demo"},
	"spaces/org/demo":                                                   {Kind: HFSpace, ID: "org/demo", URL: "https://huggingface.co/spaces/org/demo"},

	// Git.
	"https://github.com/karpathy/nanoGPT":                            {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"http://github.com/karpathy/nanoGPT":                             {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"https://github.com/karpathy/nanoGPT.git":                        {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"https://github.com/karpathy/nanoGPT/?tab=readme#run":            {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"github.com/karpathy/nanoGPT":                                    {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"www.github.com/karpathy/nanoGPT":                                {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"git@github.com:karpathy/nanoGPT.git":                            {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"ssh://git@github.com/karpathy/nanoGPT.git":                      {Kind: Git, ID: "github.com/karpathy/nanoGPT", URL: "https://github.com/karpathy/nanoGPT"},
	"git+ssh://git@github.com/o/r.git@v1":                            {Kind: Git, ID: "github.com/o/r", Ref: "v1", URL: "https://github.com/o/r/tree/v1"},
	"https://github.com/o/r/tree/main":                               {Kind: Git, ID: "github.com/o/r", Ref: "main", URL: "https://github.com/o/r/tree/main"},
	"https://github.com/o/r/tree/main/src/a":                         {Kind: Git, ID: "github.com/o/r", Ref: "main", Path: "src/a", URL: "https://github.com/o/r/tree/main/src/a"},
	"https://github.com/o/r/tree/feature%2Fx":                        {Kind: Git, ID: "github.com/o/r", Ref: "feature/x", URL: "https://github.com/o/r/tree/feature%2Fx"},
	"https://github.com/o/r/blob/refs/heads/main/a.py":               {Kind: Git, ID: "github.com/o/r", Ref: "main", Path: "a.py", URL: "https://github.com/o/r/tree/main/a.py"},
	"https://github.com/o/r/blob/v1.2/README.md#L3":                  {Kind: Git, ID: "github.com/o/r", Ref: "v1.2", Path: "README.md", URL: "https://github.com/o/r/tree/v1.2/README.md"},
	"https://github.com/o/r/commit/3adf61e":                          {Kind: Git, ID: "github.com/o/r", Ref: "3adf61e", URL: "https://github.com/o/r/tree/3adf61e"},
	"https://github.com/o/r/releases/tag/v2.0":                       {Kind: Git, ID: "github.com/o/r", Ref: "v2.0", URL: "https://github.com/o/r/tree/v2.0"},
	"https://raw.githubusercontent.com/o/r/main/x.yml":               {Kind: Git, ID: "github.com/o/r", Ref: "main", Path: "x.yml", URL: "https://github.com/o/r/tree/main/x.yml"},
	"https://github.com/o/2604.08075":                                {Kind: Git, ID: "github.com/o/2604.08075", URL: "https://github.com/o/2604.08075"},
	"git+https://github.com/o/r.git@dev#egg=x&subdirectory=py%2Flib": {Kind: Git, ID: "github.com/o/r", Ref: "dev", Path: "py/lib", URL: "https://github.com/o/r/tree/dev/py/lib"},
	"git+https://github.com/o/r#subdirectory=py":                     {Kind: Git, ID: "github.com/o/r", Ref: "HEAD", Path: "py", URL: "https://github.com/o/r/tree/HEAD/py"},
	"https://gitlab.com/group/sub/proj":                              {Kind: Git, ID: "gitlab.com/group/sub/proj", URL: "https://gitlab.com/group/sub/proj"},
	"https://gitlab.com/group/sub/proj/-/tree/main/a":                {Kind: Git, ID: "gitlab.com/group/sub/proj", Ref: "main", Path: "a", URL: "https://gitlab.com/group/sub/proj/-/tree/main/a"},
	"https://gitlab.com/group/proj/tree/main":                        {Kind: Git, ID: "gitlab.com/group/proj", Ref: "main", URL: "https://gitlab.com/group/proj/-/tree/main"},
	"https://gitlab.inria.fr/team/proj.git":                          {Kind: Git, ID: "gitlab.inria.fr/team/proj", URL: "https://gitlab.inria.fr/team/proj"},
	"git@gitlab.com:group/proj.git":                                  {Kind: Git, ID: "gitlab.com/group/proj", URL: "https://gitlab.com/group/proj"},
	"https://bitbucket.org/o/r/src/main/a/b":                         {Kind: Git, ID: "bitbucket.org/o/r", Ref: "main", Path: "a/b", URL: "git+https://bitbucket.org/o/r@main#subdirectory=a%2Fb"},
	"https://bitbucket.org/o/r/commits/3adf61e":                      {Kind: Git, ID: "bitbucket.org/o/r", Ref: "3adf61e", URL: "git+https://bitbucket.org/o/r@3adf61e"},
	"https://codeberg.org/o/r":                                       {Kind: Git, ID: "codeberg.org/o/r", URL: "https://codeberg.org/o/r"},
	"https://codeberg.org/o/r/src/branch/main/a":                     {Kind: Git, ID: "codeberg.org/o/r", Ref: "main", Path: "a", URL: "git+https://codeberg.org/o/r@main#subdirectory=a"},
	"https://git.sr.ht/~user/repo":                                   {Kind: Git, ID: "git.sr.ht/~user/repo", URL: "https://git.sr.ht/~user/repo"},
	"https://git.sr.ht/~user/repo/tree/v1/item/a.py":                 {Kind: Git, ID: "git.sr.ht/~user/repo", Ref: "v1", Path: "a.py", URL: "git+https://git.sr.ht/~user/repo@v1#subdirectory=a.py"},
	"https://gitee.com/o/r":                                          {Kind: Git, ID: "gitee.com/o/r", URL: "https://gitee.com/o/r"},
	"https://git.example.org/team/repo":                              {Kind: Git, ID: "git.example.org/team/repo", URL: "https://git.example.org/team/repo"},
	"https://git.kernel.org/pub/scm/git/git.git":                     {Kind: Git, ID: "git.kernel.org/pub/scm/git/git.git", URL: "https://git.kernel.org/pub/scm/git/git.git"},
	"https://code.example.org/team/repo.git":                         {Kind: Git, ID: "code.example.org/team/repo.git", URL: "https://code.example.org/team/repo.git"},
	"code.example.org/team/repo.git":                                 {Kind: Git, ID: "code.example.org/team/repo.git", URL: "https://code.example.org/team/repo.git"},
	"git@code.example.org:team/repo":                                 {Kind: Git, ID: "code.example.org/team/repo", URL: "git+https://code.example.org/team/repo"},
	"git+https://code.example.org/team/repo@v1":                      {Kind: Git, ID: "code.example.org/team/repo", Ref: "v1", URL: "git+https://code.example.org/team/repo@v1"},

	// OpenReview.
	"https://openreview.net/forum?id=H1xFWgrFPS":                                  {Kind: OpenReview, ID: "H1xFWgrFPS", URL: "https://openreview.net/forum?id=H1xFWgrFPS"},
	"openreview.net/forum?id=H1xFWgrFPS&noteId=abc":                               {Kind: OpenReview, ID: "H1xFWgrFPS", URL: "https://openreview.net/forum?id=H1xFWgrFPS"},
	"https://openreview.net/pdf?id=rJl-b3RcF7":                                    {Kind: OpenReview, ID: "rJl-b3RcF7", URL: "https://openreview.net/forum?id=rJl-b3RcF7"},
	"https://openreview.net/attachment?id=rJl_b3RcF7&name=supplementary_material": {Kind: OpenReview, ID: "rJl_b3RcF7", URL: "https://openreview.net/forum?id=rJl_b3RcF7"},

	// Folders.
	".":                          {Kind: Local, ID: ".", Path: ".", URL: "."},
	"..":                         {Kind: Local, ID: "..", Path: "..", URL: ".."},
	"./code":                     {Kind: Local, ID: "./code", Path: "./code", URL: "./code"},
	"./code/../x/":               {Kind: Local, ID: "./x", Path: "./x", URL: "./x"},
	"./2604.08075":               {Kind: Local, ID: "./2604.08075", Path: "./2604.08075", URL: "./2604.08075"},
	"../papers/2604.08075":       {Kind: Local, ID: "../papers/2604.08075", Path: "../papers/2604.08075", URL: "../papers/2604.08075"},
	"/srv/code//repo/":           {Kind: Local, ID: "/srv/code/repo", Path: "/srv/code/repo", URL: "file:///srv/code/repo"},
	"/srv/my code":               {Kind: Local, ID: "/srv/my code", Path: "/srv/my code", URL: "file:///srv/my%20code"},
	"/srv/größe":                 {Kind: Local, ID: "/srv/größe", Path: "/srv/größe", URL: "file:///srv/gr%C3%B6%C3%9Fe"},
	"~":                          {Kind: Local, ID: "~", Path: "~", URL: "~"},
	"~/.":                        {Kind: Local, ID: "~", Path: "~", URL: "~"},
	"~/code":                     {Kind: Local, ID: "~/code", Path: "~/code", URL: "~/code"},
	"file:///srv/code":           {Kind: Local, ID: "/srv/code", Path: "/srv/code", URL: "file:///srv/code"},
	"file:/srv/code":             {Kind: Local, ID: "/srv/code", Path: "/srv/code", URL: "file:///srv/code"},
	"file://localhost/srv/a%20b": {Kind: Local, ID: "/srv/a b", Path: "/srv/a b", URL: "file:///srv/a%20b"},
}

// refused maps what must not be taken for anything to words of the reason or
// the fix.
var refused = map[string]string{
	// Near misses of arXiv ids.
	"1706.3762":                   "did you mean 1706.03762",
	"1706.3762v5":                 "did you mean 1706.03762v5",
	"1413.0001":                   "month 13",
	"2600.08075":                  "month 00",
	"0703.0001":                   "0704",
	"0601.1234":                   "0704",
	"9901.12345":                  "archive/YYMMNNN",
	"1412.00001":                  "four digits",
	"0704.00001":                  "four digits",
	"2604.00000":                  "no number 0",
	"1412.0000":                   "no number 0",
	"2604.080751":                 "looks like an arXiv id",
	"2604.807":                    "looks like an arXiv id",
	"260.08075":                   "looks like an arXiv id",
	"2604.08075v0":                "looks like an arXiv id",
	"2604.08075v":                 "looks like an arXiv id",
	"2604.08075v123456":           "looks like an arXiv id",
	"260408075":                   "dot",
	"9901001":                     "archive",
	"arXiv2604.08075":             "colon",
	"arxiv-2604.08075":            "colon",
	"hep-th/9901000":              "no number 0",
	"hep-th/9913001":              "month 13",
	"hep-th/0704001":              "0703",
	"hep-th/2601001":              "0703",
	"hep-th/990100":               "looks like an old arXiv id",
	"hep-th/99010012":             "looks like an old arXiv id",
	"hep-th/9901001v0":            "looks like an old arXiv id",
	"org/9609001":                 "no archive org",
	"test/9609001":                "no archive test",
	"bad-arch/9609001":            "no archive bad-arch",
	"org/1706.3762":               "looks like an arXiv id",
	"org/2604.08075":              "write the arXiv id alone",
	"abs/2604.08075":              "write the arXiv id alone",
	"2604.08075/v2":               "looks like an arXiv id",
	"arXiv:":                      "not an arXiv id",
	"arXiv:gpt2":                  "not an arXiv id",
	"arXiv:2604.08075 v2":         "looks like an arXiv id",
	"2604.08075 and 2604.08076":   "space",
	"10.48550/arXiv.2604.08075v2": "write 2604.08075v2",
	"10.1145/3292500.3330701":     "10.48550",
	"https://doi.org/10.1145/3292500.3330701":               "10.48550",
	"https://arxiv.org/abs/1706.3762":                       "did you mean 1706.03762",
	"https://arxiv.org/abs/2604.08075v99v":                  "looks like", // trailing junk
	"https://arxiv.org/abs/2604.08075).":                    "looks like an arXiv id",
	"https://arxiv.org/abs/2604.08075/related":              "follows the arXiv id",
	"https://arxiv.org/abs/org/9609001":                     "no archive org",
	"https://arxiv.org/abs/":                                "no paper",
	"https://arxiv.org/":                                    "no paper",
	"arxiv.org":                                             "no paper",
	"https://arxiv.org/list/cs.LG/recent":                   "not about one paper",
	"https://arxiv.org/a/smith_j_1":                         "not about one paper",
	"https://arxiv.org/search/?query=2604.08075":            "not about one paper",
	"https://export.arxiv.org/api/query?search_query=all:x": "id_list",
	"https://arxiv.org/abs/2604.08075%00":                   "encodes",
	"https://arxiv.org/abs/%2e%2e/2604.08075":               "segment",
	"https://arxiv.org/abs/../2604.08075":                   "segment",
	"https://mirror.example.com/2604.08075/2604.08076":      "two papers",
	"https://mirror.example.com/?id=2604.08075,2604.08076":  "two papers",
	"https://mirror.example.com/abs/1706.3762":              "did you mean 1706.03762",
	"https://huggingface.co/papers/1706.3762":               "did you mean 1706.03762",
	"https://alphaxiv.org/explore":                          "no arXiv id",

	"2604.08075v99v":     "looks like an arXiv id",
	"2604.08075-final":   "looks like an arXiv id",
	"hep-th/9901001-v2":  "looks like an old arXiv id",
	"hep-th/9901001v2vx": "looks like an old arXiv id",
	"hep-th/9901001v2x":  "looks like an old arXiv id",

	// Hostile and broken addresses.
	"":   "empty",
	"  ": "empty",
	"<>": "empty",
	"https://arxiv.org@evil.example.com/abs/2604.08075":            "user name",
	"https://user:pass@github.com/o/r":                             "user name",
	"https://token@huggingface.co/org/name":                        "user name",
	"http://127.1/":                                                "public host name",
	"http://127.0.0.1/abs/2604.08075":                              "public host name",
	"http://0x7f000001/":                                           "public host name",
	"http://0x7f.1/2604.08075":                                     "public host name",
	"http://2130706433/2604.08075":                                 "public host name",
	"http://127.0.0.0x1/o/r.git":                                   "public host name",
	"http://[::1]/2604.08075":                                      "public host name",
	"http://[::ffff:169.254.169.254]/x.git":                        "public host name",
	"http://localhost/o/r.git":                                     "public host name",
	"https://intranet/o/r.git":                                     "public host name",
	"https://evil/?u=arxiv.org":                                    "public host name",
	"https://evil.example.com/?u=arxiv.org":                        "no arXiv id",
	"https://evil.example.com/?u=https://arxiv.org/abs/2604.08075": "no arXiv id",
	"https://xn--rxiv-5cd.org/abs/2604.08075":                      "internationalised",
	"https://arxiv.org:8443/abs/2604.08075":                        "port",
	"http://arxiv.org:22/abs/2604.08075":                           "port",
	"https://аrxiv.org/abs/2604.08075":                             "U+0430",
	"２６０４.08075":                                                   "not ASCII",
	"2604.08075\u200b":                                             "invisible",
	"2604\x1b[31m.08075":                                           "invisible",
	"26\x0004.08075":                                               "invisible",
	"https://arxiv.org/abs/2604.08075\u202e":                       "invisible",
	"2604.\xff08075":                                               "UTF-8",
	`C:\Users\me\code`:                                             "backslash",
	`https:\\arxiv.org\abs\2604.08075`:                             "backslash",
	"https:arxiv.org/abs/2604.08075":                               "no host",
	"https:///abs/2604.08075":                                      "no host",
	"https://":                                                     "no host",
	"https://%zz/":                                                 "well-formed",
	"ftp://arxiv.org/abs/2604.08075":                               "scheme ftp",
	"javascript:alert(1)":                                          "scheme javascript",
	"data:text/html,x":                                             "scheme data",
	"s3://bucket/key":                                              "scheme s3",
	"ext::sh -c id":                                                "well-formed|scheme|host",
	"--help":                                                       "starts or ends with",
	"-rf":                                                          "starts or ends with",
	"hello world":                                                  "space",

	// What is not quite a name on the hub.
	"org/name/extra":        "more than one slash",
	"org/na--me":            "--",
	"org/na..me":            "..",
	"org/.name":             "starts or ends with",
	"org/name.":             "starts or ends with",
	"org/name.git":          "none ends with .git|looks like",
	"org/na me":             "space",
	"org/name:latest":       "letters, digits",
	"org//name":             "more than one slash",
	"org/name@":             "no revision",
	"org/name@a b":          "space",
	"org/name@../x":         "not a branch",
	"org/name@feature/x":    "refs/pr/N",
	"data/plan.json":        "looks like a file",
	"paper.pdf":             "looks like a file",
	"README.md":             "looks like a file",
	"example.com":           "looks like a host",
	"githib.com/o":          "looks like a host",
	"arxlv.org/2604.08075":  "looks like",
	strings.Repeat("a", 97): "letters, digits",
	strings.Repeat("a", 60) + "/" + strings.Repeat("b", 60):   "at most 96",
	"https://huggingface.co/":                                 "nothing on the hub",
	"https://huggingface.co/docs/transformers":                "not about one model",
	"https://huggingface.co/models":                           "not about one model",
	"https://huggingface.co/collections/org/x-123":            "not about one model",
	"https://huggingface.co/org/name/commits/main":            "names no revision",
	"https://huggingface.co/org/name/discussions/3":           "names no revision",
	"https://huggingface.co/org/name/settings":                "names no revision",
	"https://huggingface.co/org/name/edit/main/x":             "names no revision",
	"https://huggingface.co/org/name/tree":                    "no revision follows",
	"https://huggingface.co/org/name/resolve/main/../../x":    "segment",
	"https://huggingface.co/org/name/resolve/main/%2e%2e%2fx": "segment",
	"hf://":           "nothing on the hub",
	"hf://datasets":   "nothing on the hub",
	"hf://org/na--me": "--",
	"hf://org/name@":  "not a branch",
	"datasets/a/b/c":  "more than one slash",

	// What is not quite a repository.
	"https://github.com/karpathy":                  "not about one repository",
	"https://github.com/topics/llm":                "not about one repository",
	"https://github.com/o/r/pull/3":                "names no reference",
	"https://github.com/o/r/issues":                "names no reference",
	"https://github.com/o/r/tree":                  "no reference follows",
	"https://github.com/o/r/commit/main":           "no commit follows",
	"https://github.com/o/r/releases":              "names no tag",
	"https://github.com/o/r/tree/a..b":             "not a branch",
	"https://github.com/o/r/tree/-upload-pack":     "not a branch",
	"https://github.com/-o/r":                      "no account",
	"https://github.com/o/r%20x":                   "no repository",
	"https://github.com/o/.git":                    "no repository",
	"https://github.com/o/r/tree/main/%2F":         "segment",
	"https://o.github.io/r":                        "project page",
	"https://gitlab.com/group":                     "not about one repository",
	"https://code.example.org/team/repo":           ".git",
	"git://github.com/o/r.git":                     "git://",
	"ssh://root@github.com/o/r.git":                "only git@host",
	"ssh://github.com/o/r.git":                     "only git@host",
	"ssh://git@github.com:2222/o/r.git":            "port",
	"git@localhost:o/r.git":                        "public host name",
	"git@github.com:../../etc":                     "segment",
	"git+https://github.com/o/r/tree/main@v1":      "two references",
	"git+https://github.com/o/r#subdirectory=../x": "segment",

	// OpenReview and folders.
	"https://openreview.net/forum":                 "not an OpenReview id",
	"https://openreview.net/forum?id=../x":         "not an OpenReview id",
	"https://openreview.net/group?id=ICLR.cc/2024": "not about one paper",
	"./a /":                   "ends with a space",
	"~root/code":              "another user",
	"~/../root":               `".."`,
	"file:code":               "no absolute path",
	"file://server/share":     "cannot be read",
	"file:///a%00b":           "invisible",
	"file:///a?x=1":           "no query",
	"/srv/\u202ecode":         "invisible",
	strings.Repeat("x", 3000): "more than the",
}

func TestAccepted(t *testing.T) {
	for in, want := range accepted {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("Parse(%q): %v", in, err)
			continue
		}
		want.Input = in
		if want.Kind == ArXiv {
			want.URL = "https://arxiv.org/abs/" + want.ID + want.Version
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", in, diff)
		}
	}
}

func TestRefused(t *testing.T) {
	for in, words := range refused {
		got, err := Parse(in)
		if err == nil {
			t.Errorf("Parse(%q) = %+v, want a refusal", in, got)
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Input != in || e.Reason == "" || e.UserError() == "" {
			t.Errorf("Parse(%q): error %#v is not a whole *Error", in, err)
		}
		if !containsAny(err.Error(), strings.Split(words, "|")) {
			t.Errorf("Parse(%q): %v\nwant words of %q", in, err, words)
		}
		if strings.ContainsFunc(err.Error(), hidden) || len(err.Error()) > 1200 {
			t.Errorf("Parse(%q): message of %d bytes is not safe to print: %q", in, len(err.Error()), err.Error())
		}
	}
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

func TestTableIsBroad(t *testing.T) {
	if n := len(accepted) + len(refused); n < 220 {
		t.Errorf("the tables have %d strings, want at least 220", n)
	}
}

// checkCanonical holds what is true of every target.
func checkCanonical(t *testing.T, got Target) {
	t.Helper()
	again, err := Parse(got.URL)
	if err != nil {
		t.Errorf("Parse(%q) of the canonical URL of %+v: %v", got.URL, got, err)
		return
	}
	again.Input = got.Input
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("the canonical URL of %q reads back differently (-first +second):\n%s", got.Input, diff)
	}
	if got.Kind == "" || got.ID == "" || got.URL == "" {
		t.Errorf("%+v is incomplete", got)
	}
	if got.Kind != Local && strings.ContainsAny(got.URL, " \"<>\\`") {
		t.Errorf("URL %q is not escaped", got.URL)
	}
}

func TestCanonicalIsFixedPoint(t *testing.T) {
	for in := range accepted {
		got, err := Parse(in)
		if err != nil {
			continue // TestAccepted reports it
		}
		checkCanonical(t, got)
		if got.Kind == ArXiv || got.Kind == HFModel && !strings.HasPrefix(in, "hf://") {
			id := got.ID + got.Version
			if got.Kind == HFModel && got.Revision != "" {
				id += "@" + got.Revision
			}
			short, err := Parse(id)
			if err != nil || short.ID != got.ID || short.Version != got.Version || short.Revision != got.Revision {
				t.Errorf("Parse(%q), the short form of %q = %+v, %v", id, in, short, err)
			}
		}
	}
}

func TestParseArXiv(t *testing.T) {
	id, v, err := ParseArXiv("arXiv:math.GT/0309136v2.pdf")
	if id != "math/0309136" || v != "v2" || err != nil {
		t.Errorf("got %q %q %v", id, v, err)
	}
	var e *Error
	if _, _, err := ParseArXiv("gpt2"); !errors.As(err, &e) {
		t.Errorf("gpt2: %v", err)
	}
}

func TestCloneURL(t *testing.T) {
	for in, want := range map[string]string{
		"git@github.com:o/r.git":                 "https://github.com/o/r",
		"https://github.com/o/r/tree/main/a":     "https://github.com/o/r",
		"https://code.example.org/t/r.git":       "https://code.example.org/t/r.git",
		"https://git.sr.ht/~user/repo/tree/main": "https://git.sr.ht/~user/repo",
		"/srv/code":                              "/srv/code",
		"gpt2":                                   "",
	} {
		got, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if u := CloneURL(got); u != want {
			t.Errorf("CloneURL(%q) = %q, want %q", in, u, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for in := range accepted {
		f.Add(in)
	}
	for in := range refused {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Parse(in)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Parse(%q): %T is not an *Error", in, err)
			}
			if strings.ContainsFunc(err.Error(), hidden) {
				t.Fatalf("Parse(%q): message not safe to print: %q", in, err.Error())
			}
			return
		}
		checkCanonical(t, got)
		for _, s := range []string{got.ID, got.Version, got.Revision, got.Path, got.Ref, got.URL} {
			if strings.ContainsFunc(s, hidden) {
				t.Errorf("Parse(%q) let an invisible character through: %+q", in, s)
			}
		}
		if got.Kind != Local {
			for _, seg := range strings.FieldsFunc(got.ID+"/"+got.Path, func(r rune) bool { return r == '/' }) {
				if seg == ".." || seg == "." {
					t.Errorf("Parse(%q) let a %q segment through: %+v", in, seg, got)
				}
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, in := range map[string]string{
		"arxiv":  "https://arxiv.org/pdf/hep-th/9901001v3.pdf",
		"hub":    "nvidia/Qwen3.6-27B-NVFP4",
		"git":    "https://github.com/o/r/tree/main/src",
		"mirror": "https://reader.example.com/docs/arxiv/2604.08075",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
