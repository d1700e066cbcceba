-- One bucket of tokens: the moment at which it would be full again, in milliseconds. What frontend/src/limits/gcra.rs says, step by
-- step; `now` stands before it.
-- KEYS[1]: the bucket. ARGV: what to do, time of one refill, how far from full it may be for one more, how far ahead it may be.
-- Answers in how many milliseconds the bucket would have been full before this.
local refill, may_spend, ahead_max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local full_at = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
local before = math.max(full_at - now, 0)
-- Not written by this script, at this clock.
if not (before <= ahead_max) then before = 0 end
local after = before
if ARGV[1] == 'take' then
    if before <= may_spend then after = before + refill end
elseif ARGV[1] == 'count' then
    after = math.min(before + refill, ahead_max)
elseif ARGV[1] == 'give_back' then
    after = math.max(before - refill, 0)
end
-- It expires when it is full: a refusal writes nothing and puts nothing off.
if after ~= before then
    if after > 0 then
        redis.call('SET', KEYS[1], string.format('%.0f', now + after), 'PX', string.format('%.0f', after))
    else
        redis.call('DEL', KEYS[1])
    end
end
return before
