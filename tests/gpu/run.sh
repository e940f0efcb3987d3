#!/usr/bin/env bash
# Builds schedc, checks and measures it on this machine's GPU, and prints one table: each thing, its figure, pass or fail.
#
#   tests/gpu/run.sh                 all rows; builds target/release/schedc first
#   SCHEDC=PATH tests/gpu/run.sh     all rows with this binary
#   QUICK=1 tests/gpu/run.sh         fewer steps, and only some schedules
#
# Exits 0 if every row passed, 1 if one failed or was skipped, 2 where there is no GPU. The peers are PyTorch's, on the same GPU in the same run; without PyTorch their rows are skipped.
# Where there are two GPUs or more, ranks on GPUs of their own are checked, too, over NCCL.
# SCHEDC_PEAK_TFLOPS is the GPU's peak in bf16 where the script does not know it; SCHEDULES are those whose plans are checked; MODEL are the
# flags of the model that one rank is measured on, MEDIUM of the one that four ranks on one GPU are held against one rank with.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"

gpu="$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)"
if [ -z "$gpu" ]; then
    echo 'no GPU: nothing measured'
    exit 2
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# Streams of all ranks shall not share the few queues that a driver makes by default.
export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-32}"

if [ -z "${SCHEDC:-}" ]; then
    (cd "$root" && cargo build --release --locked) || { echo 'the build failed'; exit 1; }
    SCHEDC="${CARGO_TARGET_DIR:-$root/target}/release/schedc"
fi
[ -x "$SCHEDC" ] || { echo "no program $SCHEDC"; exit 1; }

python="$(command -v python3 || true)"
[ -n "$python" ] || echo 'skipped: no python3, so dumps are not compared and there is no peer'
torch=''
if [ -n "$python" ]; then
    if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        torch=yes
    else
        echo 'skipped: no PyTorch that sees the GPU, so there is no peer'
    fi
fi
sanitizer="$(command -v compute-sanitizer || true)"
[ -n "$sanitizer" ] || echo 'skipped: no compute-sanitizer'

# --- the table -------------------------------------------------------------------------------------------------------------------------

rows="$work/rows"
: >"$rows"
bad=0

# row WHAT FIGURE VERDICT
row() {
    printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$rows"
    [ "$3" = pass ] || bad=1
}

# compared WHAT FIGURE UNIT (le|ge) LIMIT: passes if the figure is a number on the right side of the limit.
compared() {
    local verdict
    verdict="$(awk -v a="$2" -v b="$5" -v op="$4" 'BEGIN {
        if (a !~ /^[-+0-9.eE]+$/ || b !~ /^[-+0-9.eE]+$/) print "fail"
        else print ((op == "le" ? a + 0 <= b + 0 : a + 0 >= b + 0) ? "pass" : "fail")
    }')"
    row "$1" "${2:-no figure}$3 ($([ "$4" = le ] && echo 'at most' || echo 'at least') $5)" "$verdict"
}

finish() {
    printf '\n%s, %s, %s\n\n' "$gpu" "$("$SCHEDC" --version)" "$(date -u +%Y-%m-%d)"
    awk -F '\t' '{ printf "| %-44s | %-60s | %-9s |\n", $1, $2, $3 }' \
        <(printf 'what\tmeasured\tresult\n') <(printf -- '---\t---\t---\n') "$rows"
    exit "$bad"
}

# --- what is run -----------------------------------------------------------------------------------------------------------------------

# run_in TYPE ARGUMENTS...: trains on the GPU.
run_in() {
    local type="$1"
    shift
    "$SCHEDC" run "$@" --backend cuda --precision "$type"
}

small='--layers 8 --hidden 64 --heads 4 --seq 32 --batch 2 --vocab 512'
# shellcheck disable=SC2086
small_run() { run_in "$1" $2 -p 4 -m 8 $small --steps "$3" "${@:4}"; }

names=(
    'right: f32 within 1e-4 of the CPU'
    'right: bf16 within 2e-2 of the CPU'
    'right: two runs equal bit for bit'
    'clean: compute-sanitizer memcheck'
    'clean: compute-sanitizer racecheck'
    'one rank: tokens/s over PyTorch'
    'one rank: MFU (aim)'
    'vocabulary passes: time over PyTorch'
    'vocabulary passes: memory over PyTorch'
    'interpreter: host time per instruction'
    'interpreter: p=4 on one GPU over p=1'
    'interpreter: p=4 over p=1, --graph'
    'predicted: simulator over the step'
)
"$SCHEDC" run gpipe -p 1 -m 1 --layers 1 --hidden 32 --heads 2 --seq 16 --steps 1 --backend cuda >"$work/probe" 2>&1
if ! grep -q '^done' "$work/probe"; then
    cat "$work/probe"
    reason="$(grep -oE 'schedc::[a-z_]+::[a-z_]+' "$work/probe" | head -n 1)"
    for name in "${names[@]}"; do row "$name" "${reason:-no run succeeds}" fail; done
    finish
fi

# --- right -----------------------------------------------------------------------------------------------------------------------------

# The names under a heading of `schedc list`.
listed() { "$SCHEDC" list -p 4 -m 8 | awk -v from="$1" '$0 ~ "^" from { on = 1; next } /^[^ ]/ { on = 0 } on && NF { print $1 }'; }
read -r -d '' -a schedules < <(listed schedules; printf '\0')
read -r -d '' -a transforms < <(listed transforms; printf '\0')
if [ -n "${QUICK:-}" ]; then schedules=(1f1b zb-h1 dualpipe-v); fi
if [ -n "${SCHEDULES:-}" ]; then read -r -a schedules <<<"$SCHEDULES"; fi

declare -A worst=([f32]=0 [bf16]=0)
tried=0 same=0 broken=''
for schedule in "${schedules[@]}"; do
    for transform in '' "${transforms[@]}"; do
        words="$schedule${transform:+ --with $transform}"
        # Not every pair exists; the CPU says which does.
        # shellcheck disable=SC2086
        "$SCHEDC" run $words -p 4 -m 8 $small --steps 1 --dump "$work/cpu" >"$work/log" 2>&1 || continue
        tried=$((tried + 1))
        for type in f32 bf16; do
            if ! small_run "$type" "$words" 1 --dump "$work/$type" >"$work/log" 2>&1; then
                broken="$broken $words ($type)"
                tail -n 5 "$work/log"
                continue
            fi
            [ -n "$python" ] || continue
            far="$("$python" "$here/distance.py" "$work/cpu" "$work/$type" 2>"$work/where")" || far=nan
            awk -v a="$far" 'BEGIN { exit !(a + 0 > 2e-2 || a ~ /nan|inf/) }' && echo "$words, $type: $(cat "$work/where")"
            worst[$type]="$(awk -v a="${worst[$type]}" -v b="$far" 'BEGIN { print (b ~ /nan|inf/ || a ~ /nan/) ? "nan" : (b + 0 > a + 0 ? b : a) }')"
        done
        small_run f32 "$words" 1 --dump "$work/again" >"$work/log" 2>&1 && cmp -s "$work/f32" "$work/again" && same=$((same + 1))
    done
done
[ -z "$broken" ] || echo "failed:$broken"
for type in f32 bf16; do
    index=0 limit=1e-4
    if [ "$type" = bf16 ]; then index=1 limit=2e-2; fi
    if [ -z "$python" ]; then
        row "${names[$index]}" 'no python3' skipped
    elif [ "$tried" = 0 ]; then
        row "${names[$index]}" 'no plan runs on the CPU' fail
    elif [ -n "$broken" ]; then
        row "${names[$index]}" "of $tried plans these failed:$broken" fail
    else
        compared "${names[$index]}" "${worst[$type]}" " at worst of $tried plans" le "$limit"
    fi
done
compared "${names[2]}" "$same" " of $tried plans" ge "$((tried > 0 ? tried : 1))"

# --- clean -----------------------------------------------------------------------------------------------------------------------------

number=3
for tool in memcheck racecheck; do
    if [ -z "$sanitizer" ]; then
        row "${names[$number]}" 'no compute-sanitizer' skipped
    else
        # shellcheck disable=SC2086
        "$sanitizer" --tool "$tool" --error-exitcode 9 "$SCHEDC" run 1f1b --with vocab-2 -p 4 -m 4 --layers 4 --hidden 32 --heads 2 --seq 16 \
            --steps 1 --backend cuda --precision bf16 >"$work/$tool" 2>&1
        code=$?
        summary="$(grep -oE '(ERROR|RACECHECK) SUMMARY:.*' "$work/$tool" | head -n 1)"
        row "${names[$number]}" "${summary:-exit $code}" "$([ "$code" = 0 ] && echo pass || echo fail)"
        [ "$code" = 0 ] || tail -n 20 "$work/$tool"
    fi
    number=$((number + 1))
done

# --- speed of one rank -----------------------------------------------------------------------------------------------------------------

steps=20
[ -z "${QUICK:-}" ] || steps=8
model="${MODEL:---layers 24 --hidden 2048 --heads 16 --seq 2048 --batch 2 --vocab 131072}"
# The median of the tokens/s of a log's steps, without the first three.
rate() { awk '/^step/ { for (i = 1; i < NF; ++i) if ($(i + 1) == "tokens/s") print $i }' "$1" | tail -n +4 | sort -n | awk '{ a[NR] = $1 } END { if (NR) print a[int((NR + 1) / 2)] }'; }
# figure KEY FILE: a number of a line of JSON.
figure() { sed -nE "s/.*\"$1\": *([-0-9.eE+]+).*/\1/p" "$2" | tail -n 1; }
over() { awk -v a="$1" -v b="$2" 'BEGIN { if (a + 0 > 0 && b + 0 > 0) printf "%.4f", a / b; else print "no figure" }'; }

# shellcheck disable=SC2086
run_in bf16 gpipe -p 1 -m 4 $model --steps "$steps" >"$work/one" 2>&1 || tail -n 5 "$work/one"
ours="$(rate "$work/one")"
if [ -z "$torch" ]; then
    row "${names[5]}" "${ours:-no figure} tokens/s; no PyTorch" skipped
else
    # shellcheck disable=SC2086
    "$python" "$here/gpt.py" $model --microbatches 4 --steps "$steps" >"$work/peer" 2>"$work/peer.err" || tail -n 5 "$work/peer.err"
    peer="$(figure tokens_per_second "$work/peer")"
    echo "one rank: ${ours:-no figure} tokens/s, PyTorch ${peer:-no figure} tokens/s, $(figure peak_bytes "$work/peer") bytes at its peak"
    compared "${names[5]}" "$(over "$ours" "$peer")" " x" ge 1.0
fi
case "$gpu" in
    *H100* | *H200*) peak=989 ;;
    *A100*) peak=312 ;;
    *B200*) peak=2250 ;;
    *) peak="${SCHEDC_PEAK_TFLOPS:-}" ;;
esac
gflops="$(awk '/^step/ { for (i = 1; i < NF; ++i) if ($(i + 1) == "GFLOP/s") print $i }' "$work/one" | tail -n +4 | sort -n | awk '{ a[NR] = $1 } END { if (NR) print a[int((NR + 1) / 2)] }')"
if [ -z "$peak" ]; then
    row "${names[6]}" 'SCHEDC_PEAK_TFLOPS is not set' skipped
else
    compared "${names[6]}" "$(awk -v a="${gflops:-0}" -v b="$peak" 'BEGIN { printf "%.1f", a / b / 10 }')" ' %' ge 55
fi

# --- vocabulary passes and prediction: by `schedc profile` -----------------------------------------------------------------------------

# profiled FILE ARGUMENTS...: the times of each pass on the GPU, as JSON in FILE.times.
profiled() {
    local file="$1"
    shift
    "$SCHEDC" profile "$@" --backend cuda --precision bf16 --json --output "$file" >"$file.times" 2>"$work/log" || { tail -n 5 "$work/log"; return 1; }
}
# microseconds PASS FILE: the median of a pass.
microseconds() { sed -nE "s/.*\"$1\":\{\"count\":[0-9]+,\"mean\":[0-9.]+,\"median\":([0-9.]+).*/\1/p" "$2"; }

vocabulary='--layers 4 --hidden 4096 --heads 32 --seq 4096 --batch 1 --vocab 131072'
# shellcheck disable=SC2086
profiled "$work/vocabulary.json" gpipe --with vocab-1 -p 4 -m 2 $vocabulary
[ -z "$torch" ] || "$python" "$here/vocabulary.py" >"$work/head" 2>"$work/head.err" || tail -n 5 "$work/head.err"
s="$(microseconds S "$work/vocabulary.json.times")" t="$(microseconds T "$work/vocabulary.json.times")"
peak_bytes="$(figure vocabulary_bytes "$work/vocabulary.json.times")"
if [ -z "$torch" ]; then
    row "${names[7]}" "S ${s:-?} + T ${t:-?} us; no PyTorch" skipped
    row "${names[8]}" "${peak_bytes:-?} bytes; no PyTorch" skipped
else
    sum="$(awk -v a="${s:-0}" -v b="${t:-0}" 'BEGIN { if (a > 0 && b > 0) print a + b }')"
    compared "${names[7]}" "$(over "$sum" "$(figure microseconds "$work/head")")" ' x' le 1.0
    compared "${names[8]}" "$(over "$peak_bytes" "$(figure peak_bytes "$work/head")")" ' x' le 0.6
fi

# --- interpreter -----------------------------------------------------------------------------------------------------------------------

host="$(sed -nE 's/^host +([0-9]+) ns an instruction.*/\1 ns/p' "$work/one" | tail -n 1)"
row "${names[9]}" "${host:-no figure}" "$([ -n "$host" ] && echo pass || echo fail)"

# The same layers, microbatches and tokens on one rank and on four, all on this GPU.
medium="${MEDIUM:---layers 8 --hidden 2048 --heads 16 --seq 1024 --batch 4 --vocab 32768}"
number=10
for extra in '' --graph; do
    limit=1.05
    if [ "$number" = 11 ]; then limit=1.01; fi
    for ranks in 1 4; do
        # shellcheck disable=SC2086
        run_in bf16 gpipe -p "$ranks" -m 8 $medium --steps "$steps" $extra >"$work/p$ranks" 2>&1 || tail -n 5 "$work/p$ranks"
    done
    # Rates, so the other way round.
    compared "${names[$number]}" "$(over "$(rate "$work/p1")" "$(rate "$work/p4")")" ' x' le "$limit"
    number=$((number + 1))
done

# --- predicted -------------------------------------------------------------------------------------------------------------------------

# One rank, so that nothing else is on the GPU while a pass runs.
# shellcheck disable=SC2086
profiled "$work/medium.json" gpipe -p 1 -m 8 $medium \
    && "$SCHEDC" simulate gpipe -p 1 -m 8 $medium --precision bf16 --profile "$work/medium.json" --json >"$work/simulated" 2>"$work/log"
# shellcheck disable=SC2086
run_in bf16 gpipe -p 1 -m 8 $medium --steps "$steps" >"$work/measured" 2>&1
tokens="$(awk -v words="$medium" 'BEGIN { n = split(words, w, " "); for (i = 1; i < n; ++i) { if (w[i] == "--seq") s = w[i + 1]; if (w[i] == "--batch") b = w[i + 1] } print 8 * s * b }')"
step="$(awk -v t="$tokens" -v r="$(rate "$work/measured")" 'BEGIN { if (r > 0) print t / r * 1e6 }')"
off="$(over "$(figure step "$work/simulated")" "$step")"
compared "${names[12]}" "$(awk -v a="$off" 'BEGIN { if (a + 0 > 0) { d = (a - 1) * 100; printf "%.2f", d < 0 ? -d : d } else print "no figure" }')" ' % off' le 5

# --- a GPU a rank ----------------------------------------------------------------------------------------------------------------------

gpus="$(nvidia-smi --query-gpu=name --format=csv,noheader | wc -l)"
if [ "$gpus" -ge 2 ]; then
    many=2
    if [ "$gpus" -ge 4 ]; then many=4; fi
    words="zb-h1 --with vocab-1 -p $many -m 8 $small --backend cuda"
    # The losses of a log's steps.
    losses() { awk '/^step/ { print $4 }' "$1"; }
    # shellcheck disable=SC2086
    "$SCHEDC" run $words --steps 10 >"$work/together" 2>&1 || tail -n 5 "$work/together"
    for extra in '' --graph; do
        # shellcheck disable=SC2086
        timeout 300 "$SCHEDC" launch -n "$many" -- run $words --steps 10 $extra >"$work/apart" 2>&1 || tail -n 20 "$work/apart"
        worst_loss="$(paste <(losses "$work/together") <(losses "$work/apart") | awk 'NF == 2 { n += 1; d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > worst) worst = d } END { if (n == 10) print worst + 0 }')"
        compared "right: $many GPUs, losses of one${extra:+, $extra}" "$worst_loss" ' at worst of 10 steps' le 1e-4
    done
    began="$(date +%s)"
    # shellcheck disable=SC2086
    timeout 120 "$SCHEDC" launch -n "$many" -- run $words --steps 10 --stall-timeout 5 --inject r1@20=stall >"$work/stalled" 2>&1
    code=$?
    took="$(($(date +%s) - began))"
    grep -q 'held by the drill' "$work/stalled" && [ "$code" = 1 ] && verdict=pass || verdict=fail
    row "watched: a stalled rank ends all" "exit $code with its table after $took s" "$verdict"
    [ "$verdict" = pass ] || tail -n 20 "$work/stalled"
fi

finish
