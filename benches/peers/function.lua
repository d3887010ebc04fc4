#!lua name=eligo
-- The work of eligo on Redis: every value is a packed string, so a check costs four reads.
--
-- t:TERMINAL               its organization, where both are active
-- o:ORGANIZATION:SERVICE   first and last day, then category, first and last day of every category
--                          that can win, the best first
-- c:CODE, s:SNILS, ...     holder * 256 + card; 255 stands for no card
-- h:HOLDER                 closed, number of cards, then active, first and last day of every
--                          card, then category, first and last day of every right
-- x:TRANSACTION            open or confirmed, organization, terminal, service, category, holder,
--                          checked at; when confirmed also confirmed at and both amounts
-- n                        the last transaction
--
-- Days count from 1970; 0 and 65535 are unlimited.

local OPEN_SECONDS = '86400'
local TRANSACTION = '<BI4I4I4I2I4I4'
local SETTLED = '<I4I4I4'

-- KEYS: identifier, terminal, offer. ARGV: organization, terminal, service, today, now.
-- Answers code, transaction, holder, category.
local function check(keys, args)
  local today = tonumber(args[4])
  if redis.call('GET', keys[2]) ~= args[1] then return {7, 0, 0, 0} end
  local offer = redis.call('GET', keys[3])
  if not offer then return {8, 0, 0, 0} end
  local from, to, at = struct.unpack('<I2I2', offer)
  if today < from or today > to then return {8, 0, 0, 0} end
  local found = redis.call('GET', keys[1])
  if not found then return {2, 0, 0, 0} end
  local card = found % 256
  local holder = (found - card) / 256
  local record = redis.call('GET', 'h:' .. string.format('%.0f', holder))
  local closed, cards = struct.unpack('<BB', record)
  if closed == 1 then return {5, 0, 0, 0} end
  if card < 255 then
    local active, _, expires = struct.unpack('<BI2I2', record, 3 + card * 5)
    if active == 0 or today > expires then return {5, 0, 0, 0} end
  end
  local valid = {}
  for right = 3 + cards * 5, #record, 6 do
    local category, first, last = struct.unpack('<I2I2I2', record, right)
    if first <= today and today <= last then valid[category] = true end
  end
  for candidate = at, #offer, 6 do
    local category, first, last = struct.unpack('<I2I2I2', offer, candidate)
    if valid[category] and first <= today and today <= last then
      local id = redis.call('INCR', 'n')
      local opened = struct.pack(
        TRANSACTION, 0, args[1], args[2], args[3], category, holder, args[5])
      redis.call('SET', 'x:' .. string.format('%.0f', id), opened, 'EX', OPEN_SECONDS)
      return {0, id, holder, category}
    end
  end
  return {1, 0, 0, 0}
end

-- KEYS: transaction. ARGV: organization, holder, category, price, discounted price, now.
-- Answers 0 done, 1 not found, 2 mismatch, 3 wrong state.
local function confirm(keys, args)
  local record = redis.call('GET', keys[1])
  if not record then return 1 end
  local state, organization, _, _, category, holder, _, at = struct.unpack(TRANSACTION, record)
  if organization ~= tonumber(args[1]) then return 1 end
  if holder ~= tonumber(args[2]) or category ~= tonumber(args[3]) then return 2 end
  if state == 1 then
    local _, price, discounted = struct.unpack(SETTLED, record, at)
    local same = price == tonumber(args[4]) and discounted == tonumber(args[5])
    return same and 0 or 3
  end
  -- Without an expiry: it is kept.
  redis.call('SET', keys[1],
    '\1' .. string.sub(record, 2) .. struct.pack(SETTLED, args[6], args[4], args[5]))
  return 0
end

redis.register_function('check_benefit', check)
redis.register_function('confirm_transaction', confirm)
